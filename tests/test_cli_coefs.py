"""Commands with coefficients of the user's own in place of those of the law."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

import jaxlaws as jl

SFT = {"small": {"L_inf": 1.0, "A": 5.0, "alpha": 0.3}, "large": {"L_inf": 0.5, "A": 4.0, "alpha": 0.2}}
RANGE = {"sft_data_size": [100, 1e5]}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test starts in an empty folder."""
    monkeypatch.chdir(tmp_path)


def save(law, groups, **more):
    entries = {name: {"coefs": coefs} for name, coefs in groups.items()}
    Path("coefs.json").write_text(json.dumps({"law": law, "groups": entries, **more}))


def loss(group, size):
    c = SFT[group]
    return c["L_inf"] + c["A"] * np.asarray(size, float) ** -c["alpha"]


def rows(out):
    return [json.loads(line) for line in out.splitlines()]


def test_groups_of_the_file_take_the_place_of_those_of_the_law(run):
    save("sft", SFT, range=RANGE)
    sizes, names = [200, 3000, 1e5], ["small", "large", "small"]
    pyarrow.csv.write_csv(pa.table({"sft_data_size": sizes, "group": names, "model": names[::-1]}), "runs.csv")
    coefs = ("--coefs", "coefs.json")

    def losses(*args):
        status, out, err = run("predict", "sft", *args, *coefs, "--json")
        assert status == 0, err
        return [row["sft_loss"] for row in rows(out)]

    np.testing.assert_allclose(losses("runs.csv"), [loss(*x) for x in zip(names, sizes, strict=True)], rtol=1e-14)
    found = losses("runs.csv", "--group-column", "model")
    np.testing.assert_allclose(found, [loss(*x) for x in zip(names[::-1], sizes, strict=True)], rtol=1e-14)
    found = losses("sft_data_size=1e3,1e4", "--group", "large")
    np.testing.assert_allclose(found, loss("large", [1e3, 1e4]), rtol=1e-14)
    status, out, _ = run("gradient", "sft", "sft_data_size=1e3", "--group", "small", *coefs, "--json")
    slope = rows(out)[0]["d_sft_loss_d_sft_data_size"]
    np.testing.assert_allclose(slope, (loss("small", 1000.01) - loss("small", 999.99)) / 0.02, rtol=1e-8)
    said = "jaxlaws: unknown group of sft 'gpt2'; known: 'small', 'large'\n"
    assert run("predict", "sft", "sft_data_size=1e3", "--group", "gpt2", *coefs) == (2, "", said)
    status, _, err = run("predict", "sft", "sft_data_size=1e3", *coefs)
    assert (status, "sft has 2 groups" in err) == (2, True)


def test_the_only_group_of_a_file_needs_no_name(run):
    Path("coefs.json").write_text(json.dumps({"large": SFT["large"]}))
    status, out, err = run("predict", "sft", "sft_data_size=1,1e9", "--coefs", "coefs.json", "--json")
    assert (status, err) == (0, "")  # which says no range
    np.testing.assert_allclose([row["sft_loss"] for row in rows(out)], loss("large", [1, 1e9]), rtol=1e-14)


def test_the_range_is_the_one_that_the_file_was_fitted_on(run):
    save("sft", SFT, range=RANGE)
    args = ("predict", "sft", "sft_data_size=100,1e5,2e5", "--group", "small", "--coefs", "coefs.json")
    said = "1 of 3 rows outside the range that sft was fitted on: sft_data_size in 1 (fitted on 100 to 100000)\n"
    status, _, err = run(*args)
    assert (status, err) == (0, "jaxlaws: warning: " + said)
    status, out, err = run(*args, "--strict")
    assert (status, out, err) == (2, "", "jaxlaws: inputs: " + said)
    save("sft", SFT)
    assert run(*args)[2] == ""
    said = "jaxlaws: coefs.json: there is no 'range' that the coefficients were fitted on, as --strict needs\n"
    assert run(*args, "--strict") == (2, "", said)


def test_evaluate(run):
    save("sft", SFT)
    sizes, names = np.array([200, 3000, 1e5, 5e4]), ["small", "large", "small", "large"]
    expected = np.array([loss(*x) for x in zip(names, sizes, strict=True)])
    measured = expected + np.array([0.1, -0.2, 0.1, 0.05])
    pyarrow.csv.write_csv(pa.table({"sft_data_size": sizes, "group": names, "sft_loss": measured}), "runs.csv")
    status, out, _ = run("evaluate", "sft", "runs.csv", "--coefs", "coefs.json", "--json")
    r2 = 1 - ((measured - expected) ** 2).sum() / ((measured - measured.mean()) ** 2).sum()
    assert status == 0
    np.testing.assert_allclose(json.loads(out)["r2"], r2, rtol=1e-12)


def test_more_domains_than_the_law_has(run):
    random = np.random.default_rng(0)
    size, law = 7, jl.laws["domain_mixture"]
    linear = random.normal(size=(size, size))
    coefs = {"intercept": [3.0] * size, "coef_linear": linear.tolist(), "coef_log": (-0.1 * np.eye(size)).tolist()}
    columns = [f"proportion_domain_{i + 1}" for i in range(size)]
    save("domain_mixture", {"mine": coefs}, range={name: [0.01, 0.3] for name in columns})
    proportions = random.dirichlet(np.ones(size), 5)
    pyarrow.csv.write_csv(pa.table(dict(zip(columns, proportions.T, strict=True))), "runs.csv")
    args = ("predict", "domain_mixture", "runs.csv", "--coefs", "coefs.json")
    status, out, err = run(*args, "--json")
    assert status == 0
    outside = ((proportions < 0.01) | (proportions > 0.3)).any(1).sum()
    assert f"warning: {outside} of 5 rows outside" in err
    expected = 3 + proportions @ linear.T - 0.1 * np.log(proportions + 1e-6)
    np.testing.assert_allclose([[*row.values()][size:] for row in rows(out)], expected, rtol=1e-12)

    status, out, err = run("mixture", "domain_mixture", "--coefs", "coefs.json", "--in-range", "--json")
    assert (status, err) == (0, "")
    best = np.array([rows(out)[0][f"proportions_{i + 1}" if False else name] for i, name in enumerate(columns)])
    assert (best > 0.01 - 1e-9).all()
    assert (best < 0.3 + 1e-9).all()

    def mean(p):
        return 3 + (p @ linear.T).mean(-1) - 0.1 * np.log(p + 1e-6).mean(-1)

    others = random.dirichlet(np.ones(size), 100_000)
    others = others[((others > 0.01) & (others < 0.3)).all(1)]
    assert len(others) > 1000
    assert mean(best) <= mean(others).min()
    assert len(law.input_columns) == 5


def test_allocate(run):
    coefs = {"E": 1.5, "A": 400.0, "B": 2000.0, "alpha": 0.35, "beta": 0.37}
    ranges = {"params": [1e6, 1e9], "tokens": [1e8, 1e13]}
    save("chinchilla", {"mine": coefs, "other": {**coefs, "A": 800.0}}, range=ranges)
    args = ("allocate", "chinchilla", "--coefs", "coefs.json", "--budget", "1e18,1e21", "--in-range", "--json")
    status, out, err = run(*args)
    assert (status, err) == (0, "")
    assert [row["group"] for row in rows(out)] == ["mine", "mine", "other", "other"]
    scale = (0.35 * np.array([400, 400, 800, 800]) / (0.37 * 2000)) ** (1 / 0.72)  # the closed form
    expected = np.minimum(scale * (np.array([1e18, 1e21] * 2) / 6) ** (0.37 / 0.72), 1e9)
    np.testing.assert_allclose([row["params"] for row in rows(out)], expected, rtol=1e-6)
    assert (expected < 1e9).any()
    assert (expected == 1e9).any()
    save("chinchilla", {"mine": coefs})
    for name, options in (("allocate", args[2:6]), ("mixture", args[2:4])):
        law = "chinchilla" if name == "allocate" else "domain_mixture"
        status, out, err = run(name, law, *options, "--in-range")
        said = "there is no 'range'" if name == "allocate" else "coefficients of 'chinchilla', not of 'domain_mixture'"
        assert (status, out, said in err) == (2, "", True)


@pytest.mark.parametrize("words", ["predict sft sft_data_size=1", "evaluate sft runs.csv", "gradient sft runs.csv"])
def test_a_file_that_cannot_be_used(run, words):
    Path("runs.csv").write_text("sft_data_size,sft_loss\n1e3,3\n1e4,2\n")
    args = (*words.split(), "--coefs", "coefs.json")
    assert run(*args) == (2, "", "jaxlaws: coefs.json: No such file or directory\n")
    save("sft", {"a": {**SFT["small"], "A": "4"}})
    assert run(*args) == (2, "", "jaxlaws: coefs.json: group 'a', A: a number is needed, not '4'\n")
    assert sorted(os.listdir()) == ["coefs.json", "runs.csv"]


def test_from_a_fit_to_its_predictions(run):
    sizes = np.geomspace(200, 1e5, 9)
    table = {"group": ["a"] * 9 + ["b"] * 9, "sft_data_size": [*sizes, *sizes]}
    table["sft_loss"] = [*loss("small", sizes), *(2 * loss("small", sizes))]
    pyarrow.csv.write_csv(pa.table(table), "runs.csv")
    assert run("fit", "sft", "runs.csv", "--fixed", "alpha=0.3", "-o", "coefs.json")[0] == 0
    status, out, err = run("predict", "sft", "runs.csv", "--coefs", "coefs.json", "--strict", "--json")
    assert (status, err) == (0, "")  # the runs of the fit are in its range
    np.testing.assert_allclose([row["predicted_sft_loss"] for row in rows(out)], table["sft_loss"], rtol=1e-9)
