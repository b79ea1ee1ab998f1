"""Proportions that do not sum to 1: one rule for calls, tables, fits and commands."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest

import jaxlaws as jl
from jaxlaws.fitting.runs import read_runs
from jaxlaws.scores import Tally
from jaxlaws.tables import as_frame

MIXTURE = jl.laws["domain_mixture"]
EVEN = [0.2] * 5
pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")


def by_hand(p):
    """The law, written again."""
    c = MIXTURE.groups["410M"]
    return c.intercept + c.coef_linear @ p + c.coef_log @ np.log(p + 1e-6)


def noted(call, *args, **options):
    """What a call gives, and its notes on proportions."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", jl.ProportionsWarning)
        found = call(*args, **options)
    assert all(each.filename == __file__ for each in caught)
    return found, [str(each.message) for each in caught]


@pytest.mark.parametrize("make", [list, np.array, np.float32, jnp.float32, lambda rows: np.array(rows) * 100])
def test_calls_normalise_what_is_nearly_right(make):
    rows = [[0.5, 0.1, 0.1, 0.1, 0.1995], EVEN, [0.2, 0.2, 0.2, 0.2, 0.209]]
    found, said = noted(MIXTURE, "410M", proportions=make(rows))
    count, worst = (3, 100.9) if np.max(np.asarray(make(rows))) > 1 else (2, 1.009)
    assert said == [
        f"{count} of 3 rows of proportions did not sum to 1 and were divided by their sum, "
        f"which is {worst:g} in row 2, the furthest off"
    ]
    expected = [by_hand(np.array(row) / np.sum(row)) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    slope, said = noted(jl.gradient, MIXTURE, "410M", proportions=make(rows))
    assert len(said) == 1
    exact = jl.gradient(MIXTURE, "410M", proportions=[np.array(row) / np.sum(row) for row in rows])
    np.testing.assert_allclose(slope.proportions, exact.proportions, rtol=2e-4, atol=1e-6)


def test_percent_in_a_call():
    found, said = noted(MIXTURE, "410M", proportions=[20] * 5)
    assert said == ["proportions did not sum to 1 and were divided by their sum, which is 100"]
    np.testing.assert_array_equal(found, MIXTURE("410M", proportions=EVEN))
    inside, said = noted(jl.in_range, MIXTURE, proportions=[10, 15, 5, 20, 50])
    assert (bool(inside.proportions), len(said)) == (True, 1)
    compiled = jl.compile(MIXTURE, "410M", 2)
    found, said = noted(compiled, proportions=[[20] * 5] * 2)
    assert len(said) == 1
    np.testing.assert_array_equal(found, compiled(proportions=[EVEN] * 2))


@pytest.mark.parametrize("bad", [[0.2, 0.2, 0.2, 0.2, 0.18], [22] * 5, [0.5] * 5, [np.inf, 0, 0, 0, 0]])
def test_what_is_far_off_is_an_error_with_row_and_sum(bad):
    with pytest.raises(ValueError, match=rf"^domain_mixture: proportions must sum to 1, and the sum is {sum(bad):g}$"):
        MIXTURE("410M", proportions=bad)
    with pytest.raises(ValueError, match=rf"the sum is {sum(bad):g} in row \(0, 1\); 2 of 4 rows are far off$"):
        MIXTURE("410M", proportions=[[EVEN, bad], [bad, EVEN]])
    record = MIXTURE.inputs(proportions=np.array(bad))
    for call in (
        jl.gradient,
        jl.jacobian,
        jl.hessian,
        jl.value_and_gradient,
        jl.elasticity,
        MIXTURE.__class__.__call__,
    ):
        with pytest.raises(ValueError, match="proportions must sum to 1"):
            call(MIXTURE, "410M", record)


def test_what_sums_to_1_but_for_rounding_is_left_bit_for_bit():
    rows = np.random.default_rng(0).dirichlet(np.ones(5), 40_000)
    for kind in (np.float64, np.float32, jnp.bfloat16):
        given = rows.astype(kind)
        given[0] = [0.2 + 8e-7, *EVEN[1:]]
        found, said = noted(read, given)
        assert not said
        assert found is given
    nan = np.array([[np.nan] * 5, EVEN])
    found, said = noted(MIXTURE, "410M", proportions=nan)
    assert not said
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


def read(proportions):
    from jaxlaws.arguments import arguments

    (_, _, inputs, _), *_ = arguments(MIXTURE, "410M", None, {"proportions": proportions}, None)
    return inputs.proportions


def test_transformations_are_as_they_were():
    """Nothing is known of what JAX traces, and a derivative leaves the simplex."""
    p = jnp.array([20.0] * 5)
    found, said = noted(jax.jit(lambda p: MIXTURE("410M", proportions=p)), p)
    np.testing.assert_allclose(found, by_hand(np.asarray(p)), rtol=1e-5)
    slope, also = noted(jax.grad(lambda p: MIXTURE("410M", proportions=p).sum()), p / 100)
    assert (said, also) == ([], [])
    c = MIXTURE.groups["410M"]
    np.testing.assert_allclose(slope, (c.coef_linear + c.coef_log / (0.2 + 1e-6)).sum(0), rtol=1e-5)


@pytest.mark.parametrize("make", [dict, pd.DataFrame, pl.DataFrame])
def test_tables_follow_the_same_rule(make):
    rows = np.array([EVEN, [20.0] * 5, [0.2, 0.2, 0.2, 0.2, 0.195], EVEN])
    table = make(dict(zip(MIXTURE.input_columns, rows.T, strict=True)))
    found, said = noted(jl.predict_table, MIXTURE, table, "410M")
    assert said == [
        "2 of 4 rows of proportions did not sum to 1 and were divided by their sum, "
        "which is 0.995 in row 2, the furthest off"
    ]
    expected = [by_hand(row / row.sum())[0] for row in rows]
    np.testing.assert_allclose(np.asarray(found["loss_domain_1"]), expected, rtol=1e-12)
    np.testing.assert_array_equal(np.asarray(found["proportion_domain_5"]), rows[:, 4]), "as they were given"
    with pytest.raises(jl.DataError, match=r"'proportion_domain_5' must sum to 1, and the sum is 0.9 in row 0$"):
        jl.predict_table(MIXTURE, make({name: [0.18] for name in MIXTURE.input_columns}), "410M")


def four_digits(count):
    """Runs as a report prints them: shares in four digits, which seldom sum to 1."""
    rows = np.random.default_rng(0).dirichlet(np.full(5, 5.0), count).round(4)
    losses = np.array([by_hand(row / row.sum()) for row in rows])
    columns = dict(zip((*MIXTURE.input_columns, *MIXTURE.output_columns), np.hstack([rows, losses]).T, strict=True))
    return rows, columns


def test_fits_and_scores_take_shares_in_four_digits():
    rows, table = four_digits(60)
    wrong = int((np.abs(rows.sum(1) - 1) > 1e-6).sum())
    assert 10 < wrong < 60
    runs, (said,) = noted(read_runs, MIXTURE, table)
    assert said.startswith(f"{wrong} of 60 rows of proportions")
    np.testing.assert_allclose(runs.inputs.proportions, rows / rows.sum(1, keepdims=True), rtol=1e-15)
    scores, (said,) = noted(jl.evaluate, MIXTURE, "410M", table)
    assert said.startswith(f"{wrong} of 60 rows of proportions")
    assert scores.r2 > 1 - 1e-12


def test_a_table_that_comes_in_parts_has_one_note_of_its_worst_row():
    tally = Tally(MIXTURE)
    for i, last in enumerate((0.199, 0.193, 0.2)):
        table = {name: [0.2] for name in MIXTURE.input_columns} | {name: [2.0 + i] for name in MIXTURE.output_columns}
        tally.add(as_frame({**table, "proportion_domain_5": [last]}), "410M", 1 + i)
    _, said = noted(tally.scores)
    assert said == [
        "2 of 3 rows of proportions did not sum to 1 and were divided by their sum, "
        "which is 0.993 in row 2, the furthest off"
    ]


def test_commands_follow_the_same_rule(run, tmp_path):
    rows, table = four_digits(60)
    path = tmp_path / "runs.csv"
    pd.DataFrame(table).to_csv(path, index=False)
    wrong = int((np.abs(rows.sum(1) - 1) > 1e-6).sum())
    options = ("--group", "410M")
    for command in ("predict", "gradient", "evaluate"):
        status, out, err = run(command, "domain_mixture", path, *options)
        notes = [line for line in err.splitlines() if "sum" in line]
        assert (status, bool(out), len(notes)) == (0, True, 1)
        assert notes[0].startswith(f"jaxlaws: warning: {wrong} of 60 rows of proportions did not sum to 1")
    table["proportion_domain_5"][3] = 0.9
    pd.DataFrame(table).to_csv(path, index=False)
    total = sum(table[name][3] for name in MIXTURE.input_columns)
    output = ("-o", tmp_path / "out.csv")
    for command in (("predict", *options, *output), ("gradient", *options, *output), ("evaluate", *options), ("fit",)):
        status, out, err = run(command[0], "domain_mixture", path, *command[1:])
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.endswith(f"must sum to 1, and the sum is {total:g} in row 4\n")
    assert not (tmp_path / "out.csv").exists()


def test_the_list_of_dicts_interface_does_as_its_source():
    (row,), said = noted(jl.sldbench.law("domain_mixture"), [dict.fromkeys(MIXTURE.input_columns, 20)], "410M")
    assert not said
    np.testing.assert_allclose(list(row.values()), by_hand(np.full(5, 20.0)), rtol=1e-12)


def test_a_prior_is_a_mixture_too():
    options = {"strength": 0.1, "in_range": True}
    best, said = noted(jl.optimize_mixture, MIXTURE, "410M", prior=[20] * 5, **options)
    assert len(said) == 1
    np.testing.assert_allclose(best.penalty, jl.optimize_mixture(MIXTURE, "410M", prior=EVEN, **options).penalty)
    with pytest.raises(ValueError, match=r"^domain_mixture: prior must sum to 1, and the sum is 0\.5$"):
        jl.optimize_mixture(MIXTURE, "410M", prior=[0.1] * 5, **options)
