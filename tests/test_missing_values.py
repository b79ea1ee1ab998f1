"""Runs without a value: an error that names them, or left out, where that is asked for or their weight is 0."""

import json
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import jaxlaws as jl

SFT = jl.laws["sft"]
SIZE = np.geomspace(200, 4e5, 12)
LOSS = (1 + 5 * SIZE**-0.3) * (1 + 0.01 * np.random.default_rng(0).normal(size=12))
GOOD = {"sft_data_size": SIZE, "sft_loss": LOSS}
AT = 5  # where a run is put that lacks a value


def with_a_run(loss=np.nan, size=1e4, **more):
    """The runs, and another one between them."""
    table = {"sft_data_size": np.insert(SIZE, AT, size), "sft_loss": np.insert(LOSS, AT, loss)}
    return table | {name: np.insert(np.ones(12), AT, value) for name, value in more.items()}


FORMS = {
    "dict": dict,
    "masked": lambda t: {k: np.ma.masked_invalid(v) for k, v in t.items()},
    "pandas": pd.DataFrame,
    "pandas with nulls": lambda t: pd.DataFrame(t).convert_dtypes(),
    "polars": lambda t: pl.DataFrame(t).with_columns(pl.all().fill_nan(None)),
    "arrow": pa.table,
}


def coefs_of(fit):
    return jl.as_dict(fit.coefs["all_data"])


@pytest.fixture(scope="module")
def expected():
    return jl.fit(SFT, GOOD)


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("lacks", ["sft_loss", "sft_data_size"])
def test_a_run_without_a_value_is_left_out_or_an_error(form, lacks, expected):
    table = FORMS[form](with_a_run() if lacks == "sft_loss" else with_a_run(2.0, np.nan))
    words = f"column '{lacks}' .*: row {AT}; drop_missing=True leaves such runs out$"
    with pytest.raises(jl.DataError, match=words):
        jl.fit(SFT, table)
    with pytest.warns(
        jl.MissingWarning, match=f"^1 of 13 runs were left out, which have no value: {lacks} in 1$"
    ) as told:
        found = jl.fit(SFT, table, drop_missing=True)
    assert told[0].filename == __file__
    assert coefs_of(found) == pytest.approx(coefs_of(expected), rel=1e-9)
    assert np.isnan(found.residuals).tolist() == [i == AT for i in range(13)]
    np.testing.assert_allclose(np.delete(found.residuals, AT), expected.residuals, atol=1e-9)
    assert found.scores.rows == 12
    assert found.scores.r2 == pytest.approx(expected.scores.r2)


@pytest.mark.parametrize(("objective", "loss"), [("squared", np.nan), ("huber_log", np.inf), ("huber_log", -np.inf)])
def test_runs_of_weight_0_may_lack_any_number(objective, loss):
    table = with_a_run(loss, w=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = jl.fit(SFT, table, weights="w", objective=objective)
        assert coefs_of(found) == pytest.approx(coefs_of(jl.fit(SFT, GOOD, objective=objective)), rel=1e-9)
        again = jl.fit(SFT, with_a_run(2.0, np.nan), weights=table["w"], objective=objective)
        assert coefs_of(again) == pytest.approx(coefs_of(found), rel=1e-9)
    draws = jl.bootstrap(found, 8)
    assert np.isfinite(draws.coefs["all_data"].A).all()
    assert jl.aicc(found) == pytest.approx(jl.aicc(jl.fit(SFT, GOOD, objective=objective)))


def test_a_run_without_a_weight_is_left_out(expected):
    table = with_a_run(9.0, w=np.nan)
    for weights in ("w", table["w"]):
        with pytest.raises(jl.DataError, match=f"row {AT}"):
            jl.fit(SFT, table, weights=weights)
        with pytest.warns(jl.MissingWarning, match="1 of 13 runs were left out"):
            found = jl.fit(SFT, table, weights=weights, drop_missing=True)
        assert coefs_of(found) == pytest.approx(coefs_of(expected), rel=1e-9)


def test_a_group_whose_runs_all_lack_a_value_is_no_group():
    table = {name: np.tile(values, 2) for name, values in GOOD.items()} | {"group": ["a"] * 12 + ["b"] * 12}
    table["sft_loss"][12:] = np.nan
    with pytest.warns(jl.MissingWarning, match="12 of 24"):
        found = jl.fit(SFT, table, drop_missing=True)
    assert list(found.coefs) == ["a"]
    with pytest.raises(jl.DataError, match=r"^12 of 12 runs were left out"):
        jl.fit(SFT, {**GOOD, "sft_loss": np.full(12, np.nan)}, drop_missing=True)


def test_nothing_is_said_where_nothing_is_missing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jl.fit(SFT, GOOD, drop_missing=True)


def test_scores_of_the_other_runs():
    group = "('gpt2', 'flan')"
    expected = jl.evaluate(SFT, group, GOOD)
    for loss in (np.nan, np.inf):
        with pytest.raises(jl.DataError, match=f"row {AT}; drop_missing=True"):
            jl.evaluate(SFT, group, with_a_run(loss))
        with pytest.warns(jl.MissingWarning, match="1 of 13 runs were left out, which have no value: sft_loss in 1"):
            assert jl.evaluate(SFT, group, with_a_run(loss), drop_missing=True) == expected
    with pytest.raises(jl.DataError, match=r"^12 of 12 runs were left out"):
        jl.evaluate(SFT, group, {**GOOD, "sft_loss": np.full(12, np.nan)}, drop_missing=True)


@pytest.mark.parametrize("holdout", ["sft_data_size>2e4", "30% of sft_data_size", "mask"])
def test_held_out_runs_without_a_value(holdout):
    wanted = SIZE > 2e4 if holdout == "mask" else holdout
    expected = jl.hold_out(SFT, GOOD, wanted)
    for table in (with_a_run(np.nan, 1e6), with_a_run(2.0, np.nan)):
        chosen = np.insert(wanted, AT, True) if holdout == "mask" else holdout
        with pytest.warns(jl.MissingWarning, match="1 of 13"):
            found = jl.hold_out(SFT, table, chosen, drop_missing=True)
        assert found.scores.r2 == pytest.approx(expected.scores.r2, rel=1e-6)
        assert found.fitted == expected.fitted
        assert found.held_out.sum() == expected.held_out.sum()


def test_scales_and_comparisons_without_a_value():
    expected = jl.leave_one_scale_out(SFT, GOOD, "sft_data_size", smallest=9)
    with pytest.warns(jl.MissingWarning, match="1 of 13"):
        found = jl.leave_one_scale_out(SFT, with_a_run(2.0, np.nan), "sft_data_size", smallest=9, drop_missing=True)
    assert [level.fitted for level in found.levels] == [level.fitted for level in expected.levels]
    assert found.scores.r2 == pytest.approx(expected.scores.r2, rel=1e-6)
    # One law needs the number that a run lacks, and the other does not: both are fitted to the same runs.
    random = np.random.default_rng(0)
    runs = {"params": 10 ** random.uniform(8, 10, 30), "tokens": 10 ** random.uniform(9, 11, 30)}
    loss = jl.laws["chinchilla"]("besiroglu2024", **runs) * np.exp(0.01 * random.normal(size=30))
    runs |= {"loss": np.asarray(loss), "unique_tokens": runs["tokens"] / 2}
    runs["unique_tokens"][3] = np.nan
    options = {"objective": "squared", "starts": 1}
    with pytest.warns(jl.MissingWarning, match="1 of 30 runs were left out, which have no value: unique_tokens in 1"):
        found = jl.compare(["chinchilla", "data_constrained"], runs, drop_missing=True, **options)
    assert [law.fit.scores.rows for law in found.laws] == [29, 29]


def test_other_columns_of_runs_may_hold_anything():
    table = {**GOOD, "config": {"lr": 1}, "name": object(), 3: [1]}
    assert jl.hold_out(SFT, table, "sft_data_size>2e4").scores.rows == 5
    assert jl.fit(SFT, table).scores.rows == 12
    with pytest.raises(jl.DataError, match="no column 'losses'"):
        jl.hold_out(SFT, table, "losses>2")


def test_errors_in_a_file_begin_with_its_name(tmp_path):
    path = tmp_path / "runs.jsonl"
    table = with_a_run()
    rows = [dict(zip(table, map(float, row), strict=True)) for row in zip(*table.values(), strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for verb in (
        lambda: jl.fit(SFT, path),
        lambda: jl.hold_out(SFT, path, "sft_data_size>2e4"),
        lambda: jl.leave_one_scale_out(SFT, path, "sft_data_size"),
        lambda: jl.compare([SFT], path),
    ):
        with pytest.raises(jl.DataError, match=f"^{path}: .*column 'sft_loss' .*row {AT}; drop_missing=True"):
            verb()


@pytest.mark.parametrize("weights", [None, "w"])
def test_what_is_left_out_is_not_named_where_another_row_is_wrong(weights):
    runs = {"params": [1e9, -1.0, 1e9], "tokens": [1e10] * 3, "loss": [np.nan, 3.0, 2.5], "w": [0.0, 1, 1]}
    with pytest.raises(jl.DataError, match=r"^column 'params' must be positive: row 1$"):
        jl.fit(jl.laws["chinchilla"], runs, weights=weights, drop_missing=weights is None)


def test_the_command_tells_each_of_its_own_warnings_once(run, tmp_path):
    law, path = jl.laws["domain_mixture"], tmp_path / "runs.csv"
    table = {name: [0.2, 0.2, 0.2] for name in law.input_columns} | {n: [2.0, 2.1, 2.2] for n in law.output_columns}
    table["proportion_domain_1"] = [0.2, 0.195, 0.2]
    table["loss_domain_1"] = [np.nan, 2.0, 2.1]
    pd.DataFrame(table).to_csv(path, index=False, na_rep="NaN")
    status, _, err = run("evaluate", "domain_mixture", path, "--group", "410M", "--drop-missing")
    assert (status, err.splitlines()) == (
        0,
        [
            "jaxlaws: warning: 1 of 2 rows of proportions did not sum to 1 and were divided by their sum, "
            "which is 0.995 in row 2",
            "jaxlaws: warning: 1 of 3 runs were left out, which have no value: loss_domain_1 in 1",
        ],
    )
    status, _, err = run("evaluate", "domain_mixture", path, "--group", "410M")
    words = "column 'loss_domain_1' is not a number (NaN): row 1; --drop-missing leaves such runs out"
    assert (status, err) == (2, f"jaxlaws: {path}: {words}\n")


def test_warnings_of_others_are_not_told_as_those_of_the_command(monkeypatch, run):
    def group_of(law, args):
        warnings.warn("divide by zero encountered in log", RuntimeWarning, stacklevel=1)
        raise jl.DataError("the end")

    monkeypatch.setattr("jaxlaws.cli.prediction._group", group_of)
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        assert run("evaluate", "sft", "runs.csv") == (2, "", "jaxlaws: the end\n")
