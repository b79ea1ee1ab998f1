"""What lies outside the range of the runs of a group is told: by searches, tables and commands, also of fits."""

import dataclasses
import json
import re
import warnings

import jax
import numpy as np
import pandas as pd
import pytest
from conftest import SHARED

import jaxlaws as jl

CHINCHILLA, FARSEER, MIXTURE = (jl.laws[name] for name in ("chinchilla", "farseer", "domain_mixture"))
SARDANA = "sardana2024"


def searched(*args, **options):
    """An answer, and the warnings that came with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = args[0](*args[1:], **options)
    assert all(each.category is jl.RangeWarning and each.filename == __file__ for each in caught)
    return found, [str(each.message) for each in caught]


def test_a_search_that_ends_as_far_as_is_tried_says_so_and_how_to_bound_it():
    plan, (said,) = searched(jl.allocate, FARSEER, "all_data", budget=1e21)
    assert (plan.extrapolated.params, plan.extrapolated.tokens) == (True, True)
    assert "params in 1, 1e+18 (fitted on 9.96204e+07 to 6.36957e+09)" in said
    assert "in_range=True searches only there" in said
    assert "params ends at 1e+18, as far as is tried; give upper={'params': ...}" in said
    plan, said = searched(jl.allocate, FARSEER, "all_data", budget=1e21, in_range=True)
    np.testing.assert_allclose([plan.inputs.params, plan.inputs.tokens], [2.51e9, 6.64e10], rtol=2e-3)  # as published
    assert (said, bool(plan.extrapolated.params)) == ([], False)
    _, (said,) = searched(jl.allocate, jl.laws["sparsity"], "table3", budget=1e21)
    assert "active_share ends at 1e-06" in said
    assert "in_range" not in said, "of params and tokens no range is known"
    with pytest.raises(ValueError, match="in_range=True needs the range of params, which is not known; give params"):
        jl.allocate(jl.laws["sparsity"], "table3", budget=1e21, in_range=True)


def test_groups_have_ranges_of_their_own_and_of_ratios():
    plan, (said,) = searched(jl.allocate, CHINCHILLA, SARDANA, budget=5.76e23)
    assert "tokens/params in 1, 1.7504 (fitted on 10 to 10000)" in said
    assert "tokens in" not in said
    assert (plan.extrapolated.params, plan.extrapolated.tokens) == (True, True)
    budgets = np.array([1e19, 1e20, 1e21])
    plan, said = searched(jl.allocate, CHINCHILLA, SARDANA, budget=budgets, in_range=True)
    assert not said
    c, sizes = CHINCHILLA.groups[SARDANA], np.geomspace(1.5e8, 6e9, 100_001)
    for budget, size in zip(budgets, plan.inputs.params, strict=True):
        tokens = budget / 6 / sizes
        loss = np.where(
            (tokens / sizes >= 10) & (tokens >= 1.5e9), c.A * sizes**-c.alpha + c.B * tokens**-c.beta, np.inf
        )
        np.testing.assert_allclose(size, sizes[loss.argmin()], rtol=1e-4)
    groups = [SARDANA, "besiroglu2024"]
    plan, (said,) = searched(jl.allocate, CHINCHILLA, groups, budget=np.array([[1e20], [1e22]]))
    assert said.startswith(
        "2 of 4 answers outside the range that chinchilla was fitted on: params in 1, 2.31e+10 (fitted"
    )
    assert "tokens/params in 2, 3.12339 to 6.03032 (fitted on 10 to 10000)" in said
    np.testing.assert_array_equal(plan.extrapolated.params, [[True, False]] * 2)
    by_id, _ = searched(jl.allocate, CHINCHILLA, np.array([3, 2]), budget=np.array([[1e20], [1e22]]))
    np.testing.assert_array_equal(by_id.extrapolated.params, plan.extrapolated.params)


def test_mixtures_far_from_those_of_the_runs():
    best, (said,) = searched(jl.optimize_mixture, MIXTURE, "410M")
    assert said == (
        "1 of 1 answers outside the range that domain_mixture was fitted on: proportion_domain_3 in 1, 0.680163 "
        "(fitted on 0 to 0.09375); in_range=True searches only there"
    )
    np.testing.assert_array_equal(best.extrapolated.proportions, [False, False, True, False, False])
    best, (said,) = searched(jl.optimize_mixture, MIXTURE, ["410M", "70M"], upper=np.array([[0.3] * 5, [1] * 5]))
    assert said.startswith("2 of 2 answers outside the range")
    assert best.extrapolated.proportions.shape == (2, 5)
    best, said = searched(jl.optimize_mixture, MIXTURE, "410M", in_range=True)
    assert (said, best.extrapolated.proportions.any()) == ([], False)
    low, high = map(np.asarray, MIXTURE.ranges_of("410M")["proportions"])
    assert ((low <= best.proportions) & (best.proportions <= high)).all()
    coefs = jl.laws["bimix"].golden[0][0]
    with pytest.raises(ValueError, match="in_range=True needs a range of proportions; none is known"):
        jl.optimize_mixture(jl.laws["bimix"], coefs, steps=1e4, in_range=True)


def test_ranges_of_mixtures_are_those_of_the_runs():
    path = SHARED / "data" / "sldbench_domain_mixture_train.csv"
    if not path.exists():
        pytest.skip("needs the runs")
    columns = list(MIXTURE.input_columns)
    for name, runs in pd.read_csv(path).groupby("group"):
        for end, values in zip(MIXTURE.ranges_of(name)["proportions"], (runs.min(), runs.max()), strict=True):
            np.testing.assert_array_equal(end, values[columns].to_numpy(float))


def test_within_transformations_nothing_is_said_and_the_field_is_there():
    def plan(budget, group):
        return jl.allocate(CHINCHILLA, group, budget=budget)

    expected, _ = searched(plan, np.array([1e20, 1e21, 1e22]), np.array([3, 2, 2]))
    found, said = searched(jax.jit(plan), np.array([1e20, 1e21, 1e22]), np.array([3, 2, 2]))
    np.testing.assert_array_equal(found.extrapolated.tokens, expected.extrapolated.tokens)
    mapped, also = searched(jax.vmap(lambda b: plan(b, SARDANA).extrapolated.tokens), np.array([1e20, 1e21, 1e22]))
    slope, more = searched(jax.grad(lambda b: plan(b, SARDANA).loss), 1e22)
    assert (said, also, more) == ([], [], [])
    assert mapped.all()
    assert slope < 0


def test_in_range_knows_groups():
    given = {"params": [1e9, 1e9, 1e9], "tokens": [5e9, 5e10, 1e12]}
    assert jl.in_range(CHINCHILLA, **given).tokens.tolist() == [True, True, False]
    assert jl.in_range(CHINCHILLA, group=SARDANA, **given).tokens.tolist() == [False, True, True]
    names = ["besiroglu2024", SARDANA, "besiroglu2024"]
    assert jl.in_range(CHINCHILLA, group=names, **given).tokens.tolist() == [True, True, False]
    with pytest.raises(jl.UnknownNameError, match="did you mean 'sardana2024'"):
        jl.in_range(CHINCHILLA, group="sardana", **given)


def test_tables_and_commands_know_groups(run, tmp_path):
    table = {"params": [1e9, 1e9], "tokens": [5e9, 5e9], "group": ["besiroglu2024", SARDANA]}
    _, (said,) = searched(jl.predict_table, CHINCHILLA, table)
    assert said == (
        "1 of 2 rows outside the range that chinchilla was fitted on: tokens/params in 1 (fitted on 10 to 10000)"
    )
    path = tmp_path / "runs.csv"
    pd.DataFrame(table).to_csv(path, index=False)
    assert run("predict", "chinchilla", path)[2] == f"jaxlaws: warning: {said}\n"
    args = ("allocate", "chinchilla", "--group", SARDANA, "--budget", "5.76e23")
    _, (said,) = searched(jl.allocate, CHINCHILLA, SARDANA, budget=5.76e23)
    assert run(*args)[2] == f"jaxlaws: warning: {said.replace('in_range=True', '--in-range')}\n"
    row = json.loads(run(*args, "--json")[1])
    assert (row["extrapolated_params"], row["extrapolated_tokens"]) == (True, True)
    row = json.loads(run(*args, "--json", "--in-range")[1])
    assert (row["params"], row["extrapolated_params"]) == (pytest.approx(6e9), False)
    shown = run("show", "chinchilla")[1]
    assert ["sardana2024", "1.5e+08 to 6e+09", "1.5e+09 to 1.5e+12", "10 to 10000"] in [
        re.split("  +", line.strip()) for line in shown.splitlines()
    ]
    assert json.loads(run("show", "chinchilla", "--json")[1])["ranges"][SARDANA]["tokens/params"] == [10, 1e4]


@pytest.fixture(scope="module")
def fit():
    """A fit of two groups, of which the second has smaller models, to runs of which one does not count."""
    params, tokens = (np.geomspace(low, high, 4) for low, high in ((1e7, 1e9), (1e9, 2e10)))
    n, d = (grid.ravel() for grid in np.meshgrid(params, tokens))
    table = {"params": [*n, *(n / 10), 1e15], "tokens": [*d, *d, 1e9], "group": ["a"] * 16 + ["b"] * 17}
    loss = 1.8 + 480 * np.array(table["params"]) ** -0.35 + 2000 * np.array(table["tokens"]) ** -0.37
    fixed = {"alpha": 0.35, "beta": 0.37}
    return jl.fit(CHINCHILLA, {**table, "loss": loss}, weights=[1.0] * 32 + [0.0], fixed=fixed, objective="squared")


def test_a_fit_brings_the_ranges_of_its_runs(fit, tmp_path, run):
    expected = {"params": (1e6, 1e8), "tokens": (1e9, 2e10), "tokens/params": (10, 2e4)}
    fit.save(tmp_path / "coefs.json")
    for law in (fit.law, jl.read_law(tmp_path / "coefs.json"), jl.read_law(tmp_path / "coefs.json", CHINCHILLA)):
        found = law.ranges_of("b")
        assert found.keys() == expected.keys()
        for name, ends in expected.items():
            np.testing.assert_allclose(found[name], ends, rtol=1e-12)
        assert law.ranges_of() == {}, "of coefficients of either group nothing is known"
        plan, (said,) = searched(jl.allocate, law, ["a", "b"], budget=1e19)
        assert "1 of 2 answers outside the range" in said
        assert plan.extrapolated.params.tolist() == [False, True]
        by_record, _ = searched(jl.allocate, CHINCHILLA, fit.coefs["b"], budget=1e19)
        np.testing.assert_array_equal(plan.inputs.params[1], by_record.inputs.params)
        table = {"params": [5e8, 5e8], "tokens": [1e10, 1e10], "group": ["a", "b"]}
        found, (said,) = searched(jl.predict_table, law, table)
        assert said.startswith(
            "1 of 2 rows outside the range that chinchilla was fitted on: params in 1 (fitted on 1e+06"
        )
    assert list(json.loads((tmp_path / "coefs.json").read_text())["groups"]["b"]["range"]) == list(expected)
    coefs = ("--coefs", tmp_path / "coefs.json", "--budget", "1e19", "--json")
    status, out, err = run("allocate", "chinchilla", *coefs)
    assert (status, "1 of 2 answers outside" in err) == (0, True)
    status, out, err = run("allocate", "chinchilla", *coefs, "--in-range")
    assert (status, err) == (0, "")
    assert [json.loads(line)["params"] <= most for line, most in zip(out.splitlines(), (1e9, 1e8 * 1.001), strict=True)]


def test_a_fitted_law_shares_the_programs_of_the_law(fit, compilations):
    x = {"params": np.full(2, 5e7), "tokens": np.full(2, 1e10)}
    CHINCHILLA("besiroglu2024", **x)
    jl.allocate(CHINCHILLA, "besiroglu2024", budget=1e20)
    with compilations() as made:
        found = fit.law("b", **x)
        jl.allocate(fit.law, "a", budget=1e19)
    assert not made
    np.testing.assert_array_equal(found, CHINCHILLA(fit.coefs["b"], **x))


def test_an_example_of_groups_whose_ranges_no_input_can_have_is_an_error(run, monkeypatch):
    law = dataclasses.replace(jl.laws["sft"], ranges={"('gpt2', 'flan')": {"sft_data_size": (1e9, 1e10)}})
    monkeypatch.setattr("jaxlaws.cli.prediction.known_law", lambda _: law)
    status, out, err = run("example", "sft", "--rows", 3, "--group", "('gpt2', 'flan')")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "hardly any inputs" in err
