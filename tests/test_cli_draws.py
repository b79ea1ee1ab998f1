"""Draws of coefficients: what the commands write, and how far the answers of searches are spread over them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jaxlaws as jl
from jaxlaws.law import variables

LAW = jl.laws["chinchilla"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test starts in an empty folder."""
    monkeypatch.chdir(tmp_path)


def draws(law, group, count, scale, flags=()):
    """Coefficients near those of a group."""
    random = np.random.default_rng(0)
    best = law.groups[group]
    fields = {v.name: np.asarray(getattr(best, v.name)) for v in variables(law.coefs)}
    drawn = {name: x * (1 + scale * random.normal(size=(count, *x.shape))) for name, x in fields.items()}
    return jl.Draws(law=law, coefs={group: law.coefs(**drawn)}, best={group: best}, converged={}, flags={group: flags})


def best_params(coefs, budget):
    """The closed form of Hoffmann et al. 2022."""
    scale = (coefs.alpha * coefs.A / (coefs.beta * coefs.B)) ** (1 / (coefs.alpha + coefs.beta))
    return scale * (budget / 6) ** (coefs.beta / (coefs.alpha + coefs.beta))


def test_allocations_are_spread_as_the_closed_form_is(run):
    made = draws(LAW, "besiroglu2024", 4, 0.01)
    made.save("draws.parquet")
    arguments = ("allocate", "chinchilla", "--draws", "draws.parquet", "--budget", "1e21,1e22", "--level", "80%")
    status, out, err = run(*arguments, "--json")
    assert (status, err) == (0, "")
    for row in map(json.loads, out.splitlines()):
        sizes = best_params(made.coefs["besiroglu2024"], row["budget"])
        np.testing.assert_allclose([row["params_low"], row["params_high"]], np.quantile(sizes, [0.1, 0.9]), rtol=1e-6)
        np.testing.assert_allclose(row["params"], best_params(LAW.groups["besiroglu2024"], row["budget"]), rtol=1e-6)
        assert row["draws_answered"] == 1
    status, out, _ = run(*arguments, "--to", "text")
    assert status == 0
    assert "params in 80%" in out


def test_a_target_has_costs_that_are_spread(run):
    draws(LAW, "besiroglu2024", 8, 0.003).save("draws.parquet")
    arguments = ("allocate", "chinchilla", "--draws", "draws.parquet", "--target", "2.1")
    status, out, _ = run(*arguments, "--json")
    row = json.loads(out)
    assert status == 0
    assert row["cost_low"] < row["cost"] < row["cost_high"]
    status, out, _ = run(*arguments, "--to", "text")
    assert f"{row['cost_low']:.4g} to {row['cost_high']:.4g}" in out


@pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")
def test_mixtures_say_how_often_a_domain_is_at_its_bound(run):
    law = jl.laws["domain_mixture"]
    made = draws(law, "410M", 8, 0.05)
    made.save("draws.parquet")
    status, out, _ = run("mixture", "domain_mixture", "--draws", "draws.parquet", "--upper", "0.4", "--json")
    assert status == 0
    row = json.loads(out)
    found = jl.optimize_mixture(law, made.coefs["410M"], upper=0.4)
    proportions = np.asarray(found.proportions)
    for i in range(5):
        name = f"proportion_domain_{i + 1}"
        ends = np.quantile(proportions[:, i], [0.05, 0.95])
        np.testing.assert_allclose([row[f"{name}_low"], row[f"{name}_high"]], ends, atol=1e-5)
        assert row[f"{name}_at_upper"] == pytest.approx(np.mean(np.asarray(found.at_upper)[:, i]))
    status, out, _ = run("mixture", "domain_mixture", "--draws", "draws.parquet", "--upper", "0.4", "--to", "text")
    assert "90% of draws" in out
    assert "at most in" in out


def test_flags_of_the_fit_go_with_its_draws(run):
    runs = {"params": [1e9, 2e9, 4e9], "tokens": [2e10, 3e10, 5e10], "loss": [2.5, 2.45, 2.4]}
    fit = jl.fit(LAW, runs, objective="squared")
    assert fit.flags["all_data"]
    jl.bootstrap(fit, 3).save("draws.parquet")
    assert jl.read_draws("draws.parquet").flags == dict(fit.flags)
    _, _, err = run("allocate", "chinchilla", "--draws", "draws.parquet", "--budget", "1e22")
    assert all(f"draws.parquet: group all_data: {flag}" in err for flag in fit.flags["all_data"])


def test_whole_numbers_are_names_of_groups_like_any_other(run):
    size = np.geomspace(200, 4e5, 8)
    table = pa.table({"group": [1] * 8 + [2] * 8, "sft_data_size": [*size, *size], "sft_loss": [*(1 + size**-0.3)] * 2})
    pq.write_table(table, "runs.parquet")
    assert run("fit", "sft", "runs.parquet", "-o", "coefs.json")[0] == 0
    status, out, _ = run("evaluate", "sft", "runs.parquet", "--coefs", "coefs.json", "--json")
    assert status == 0
    assert json.loads(out)["r2"] > 0.999999
    fitted = jl.fit(jl.laws["sft"], table).coefs
    assert jl.evaluate(jl.laws["sft"], fitted, table).r2 > 0.999999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit chinchilla runs.csv --resamples 5", "--resamples and --clusters are for --draws"),
        ("fit sft sft.csv --draws none/draws.parquet", "none/draws.parquet: there is no folder none"),
        ("fit chinchilla runs.csv --draws draws.csv", "draws.csv: draws are written in Parquet"),
        ("allocate chinchilla --draws other.parquet --budget 1e22", "these are coefficients of 'sft', not of"),
        ("allocate chinchilla --draws d.parquet --budget 1e22 --level 90", "'90' is not between 0 and 1"),
        ("allocate chinchilla --coefs other.parquet --budget 1e22", "files of draws go with --draws"),
    ],
)
def test_bad_input_gets_one_line(run, arguments, message):
    Path("runs.csv").write_text("params,tokens,loss\n" + "".join(f"{i}e9,{i}e10,{2 + 1 / i}\n" for i in range(1, 9)))
    Path("sft.csv").write_text("sft_data_size,sft_loss\n" + "".join(f"{i}e3,{1 + i**-0.3}\n" for i in range(1, 9)))
    draws(jl.laws["sft"], "('gpt2', 'flan')", 3, 0.01).save("other.parquet")
    status, out, err = run(*arguments.split(" "))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


@pytest.mark.parametrize(
    "values", [[0, None, 2, 3], [None] * 4, ["a", "b", "c", "d"], [[1]] * 4, [{"a": 1}] * 4], ids=str
)
@pytest.mark.parametrize("column", ["draw", "E"])
def test_draws_that_are_no_numbers_are_told(column, values):
    draws(LAW, "besiroglu2024", 4, 0.01).save("good.parquet")
    table = pq.read_table("good.parquet")
    table = table.set_column(table.column_names.index(column), column, pa.array(values))
    pq.write_table(table, "draws.parquet")
    with pytest.raises(jl.DataError, match=rf"^draws.parquet: .*'{column}'"):
        jl.read_draws("draws.parquet")


def test_a_damaged_file_of_draws_is_told_wherever_it_is_damaged():
    """By its name, in one line; where it is read all the same, nothing is wrong with it that could be seen."""
    draws(LAW, "besiroglu2024", 4, 0.01).save("good.parquet")
    good, told = Path("good.parquet").read_bytes(), []
    for place in range(0, len(good), 7):
        Path("draws.parquet").write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        try:
            jl.read_draws("draws.parquet")
        except jl.DataError as error:
            told.append(str(error))
    assert all(text.startswith("draws.parquet: ") and "\n" not in text for text in told)
    assert len(told) > 100
