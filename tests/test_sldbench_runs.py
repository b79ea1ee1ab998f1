"""The list-of-dicts door with coefficients of the user's own, and with runs that coefficients are fitted to."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
from sampling import columns, formula, inputs
from scipy.linalg import lstsq

import jaxlaws as jl
from jaxlaws.fitting.linear import refit_linear
from jaxlaws.fitting.runs import read_runs

SFT = jl.laws["sft"]
SIZES = np.geomspace(200, 4e5, 9)
LEVELS = {"a": (1.0, 5.0), "('gpt2', 'flan')": (2.0, 4.0)}


def rows_of(table):
    return [dict(zip(table, row, strict=True)) for row in zip(*(c.tolist() for c in table.values()), strict=True)]


def values(predicted):
    return np.array([list(row.values()) for row in predicted])


def with_runs(monkeypatch, frame):
    """The package that the source reads its runs with, which gives it these."""
    dataset = types.SimpleNamespace(column_names=list(frame.columns), to_pandas=lambda: frame)
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_from_disk=lambda path: dataset))


@pytest.fixture
def frame(runs):
    """The real runs, of several groups, of which one has fewer than there are coefficients."""
    frame = pd.read_csv(runs("data_constrained"))
    frame["group"] = np.where(np.arange(len(frame)) % 3 == 0, "third", "rest")
    frame.loc[[5, 50, 150], "group"] = "few"
    return frame


GROUPS = ["third", "few", "all_data", "no such group", "third"]


def test_agrees_with_the_source_that_reads_runs(frame, source, monkeypatch):
    with_runs(monkeypatch, frame)
    theirs = source("data_constrained")
    ours = jl.sldbench.law("data_constrained", runs=frame)
    rows = rows_of(columns(jl.laws["data_constrained"], 200, decades=0.3))
    table = rows_of({name: frame[name].to_numpy() for name in ("params", "tokens", "unique_tokens")})
    for group in GROUPS:
        np.testing.assert_allclose(values(ours(rows, group)), values(theirs(rows, group)), rtol=1e-9)
        losses = [values(law(table, group))[:, 0] for law in (theirs, ours)]
        r2 = [1 - np.mean((x - frame["loss"]) ** 2) / frame["loss"].var(ddof=0) for x in losses]
        assert abs(r2[0] - r2[1]) < 1e-9
    assert ours([], "third") == []
    (printed,) = jl.laws["data_constrained"].groups.values()
    kept = frame["group"] == "third"
    x = {name: frame[name].to_numpy()[kept] for name in ("params", "tokens", "unique_tokens")}
    x["passes"] = x["tokens"] / x["unique_tokens"]
    powers = zip(x.values(), (printed.alpha, printed.beta, printed.gamma, printed.delta), strict=True)
    matrix = np.stack([np.ones(kept.sum()), *(base**-power for base, power in powers)], 1)
    found = refit_linear(read_runs(jl.laws["data_constrained"], frame[kept].drop(columns="group")), printed)
    expected, _, rank, _ = lstsq(matrix, frame["loss"][kept])
    assert rank == 5
    np.testing.assert_allclose([found.d, found.a, found.b, found.c, found.e], expected, rtol=1e-6)
    assert [found.alpha, found.delta] == [printed.alpha, printed.delta]


def test_without_a_column_of_groups_all_runs_are_those_of_any_group(frame, source, monkeypatch):
    frame = frame.drop(columns="group")
    with_runs(monkeypatch, frame)
    rows = rows_of(columns(jl.laws["data_constrained"], 20))
    for group in ("all_data", "x"):
        found = jl.sldbench.law("data_constrained", runs=frame)(rows, group)
        np.testing.assert_allclose(values(found), values(source("data_constrained")(rows, group)), rtol=1e-9)


def test_nothing_at_the_path_of_the_runs(source, tmp_path):
    rows = rows_of(columns(jl.laws["data_constrained"], 20))
    printed = jl.sldbench.law("data_constrained")
    for path in (tmp_path / "none", str(tmp_path / "none.csv")):
        ours = jl.sldbench.law("data_constrained", runs=path)
        assert ours(rows, "all_data") == ours(rows, "x") == printed(rows, "x")
    np.testing.assert_allclose(values(printed(rows, "x")), values(source("data_constrained")(rows, "x")), rtol=1e-12)


@pytest.mark.parametrize("name", ["sft", "parallel"])
def test_coefficients_are_those_of_least_squares(name):
    law = jl.laws[name]
    coefs = list(law.groups.values())[-1]
    table = columns(law, 30)
    record = inputs(law, 30)
    random = np.random.default_rng(1)
    measured = np.array([formula(law, coefs, record, i) for i in range(30)]) * (1 + 0.01 * random.normal(size=30)) - 2
    linear = {"sft": ("L_inf", "A"), "parallel": ("c0", "c1", "c2", "c3")}[name]
    others = {v.name: 0.0 if v.name in linear else getattr(coefs, v.name) for v in jl.variables(law.coefs)}
    matrix = np.array(
        [[formula(law, law.coefs(**{**others, field: 1.0}), record, i) for field in linear] for i in range(30)]
    )
    found = refit_linear(read_runs(law, {**table, law.output_columns[0]: measured}), coefs)
    np.testing.assert_allclose([getattr(found, field) for field in linear], lstsq(matrix, measured)[0], rtol=1e-6)
    assert getattr(found, linear[0]) < 0  # the bounds of the law are not those of the source
    assert all(getattr(found, field) == value for field, value in others.items() if field not in linear)


def test_of_mixtures_the_smallest_coefficients():
    law = jl.laws["domain_mixture"]
    random = np.random.default_rng(0)
    proportions = random.dirichlet(np.ones(3), 30)  # which sum to 1, so that the runs do not tell all coefficients
    losses = 3 + proportions @ random.normal(size=(3, 3)) + 0.01 * random.normal(size=(30, 3))
    table = {f"proportion_domain_{i + 1}": column for i, column in enumerate(proportions.T)}
    table |= {f"loss_domain_{i + 1}": column for i, column in enumerate(losses.T)}
    matrix = np.concatenate([np.ones((30, 1)), proportions, np.log(proportions + 1e-6)], 1)
    expected, _, rank, _ = lstsq(matrix, losses)
    assert rank == 6
    found = refit_linear(read_runs(law, table), law.groups["70M"])
    whole = np.concatenate([found.intercept[:, None], found.coef_linear, found.coef_log], 1)
    np.testing.assert_allclose(whole, expected.T, rtol=1e-6, atol=1e-9)
    rows = [{name: table[name][i] for name in table if name.startswith("proportion")} for i in range(30)]
    predicted = jl.sldbench.law("domain_mixture", runs=table)(rows, "70M")
    assert list(predicted[0]) == [f"loss_domain_{i + 1}" for i in range(3)]
    np.testing.assert_allclose(values(predicted), matrix @ expected, rtol=1e-9)


def sft_runs():
    random = np.random.default_rng(0)
    table = {"group": [], "sft_data_size": [], "sft_loss": []}
    for group, (level, size) in LEVELS.items():
        table["group"] += [group] * 9
        table["sft_data_size"] += SIZES.tolist()
        table["sft_loss"] += (level + size * SIZES**-0.1 + 0.01 * random.normal(size=9)).tolist()
    return table


def least_squares(table, group, alpha):
    """The loss at 1e6 examples."""
    x, y = (np.array(table[name]) for name in ("sft_data_size", "sft_loss"))
    mine = (np.array(table["group"]) == group) | (group not in table["group"])
    level, size = np.linalg.lstsq(np.stack([np.ones(mine.sum()), x[mine] ** -alpha], 1), y[mine])[0]
    return level + size * 1e6**-alpha


ROW = [{"sft_data_size": 1e6}]


@pytest.fixture
def refits(monkeypatch):
    """The groups that are fitted, by how many runs they have."""
    found = []

    def counted(runs, coefs):
        found.append(len(runs.group))
        return refit_linear(runs, coefs)

    monkeypatch.setattr(jl.sldbench, "refit_linear", counted)
    return found


def test_groups_are_fitted_once_when_they_are_asked_for(refits):
    table = sft_runs()
    law = jl.sldbench.law("sft", runs=table)
    assert refits == []
    alphas = {"('gpt2', 'flan')": 0.0903489876, "a": 0.07, "('t5-base', 'flan')": 0.0538530120, "x": 0.07, "y": 0.07}
    for _ in range(2):
        for group, alpha in alphas.items():  # where the law does not know the group, as its source does
            expected = least_squares(table, group, alpha)
            np.testing.assert_allclose(law(ROW, group)[0]["sft_loss"], expected, rtol=1e-9)
    assert refits == [9, 9, 18, 18]  # x and y are alike
    with pytest.raises(TypeError):
        law(ROW, ["a"])
    assert not jax.config.jax_enable_x64


def test_with_jax_at_64_bits(x64):
    table = sft_runs()
    found = jl.sldbench.law("sft", runs=table)(ROW, "a")[0]["sft_loss"]
    np.testing.assert_allclose(found, least_squares(table, "a", 0.07), rtol=1e-9)


def test_runs_from_files_and_folders(tmp_path):
    table = pa.table(sft_runs())
    pyarrow.csv.write_csv(table, tmp_path / "runs.csv")
    folder = tmp_path / "saved"
    folder.mkdir()
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    expected = least_squares(sft_runs(), "a", 0.07)
    for path in (tmp_path / "runs.csv", str(folder)):
        np.testing.assert_allclose(jl.sldbench.law("sft", runs=path)(ROW, "a")[0]["sft_loss"], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("runs.csv", "", "the file is empty"),
        ("runs.csv", "sft_data_size,sft_loss\n", "the table has no rows"),
        ("runs.csv", "sft_data_size\n1000\n", "no column 'sft_loss'"),
        ("runs.csv", "sft_data_size,sft_loss\n1000,x\n", "'sft_loss' must hold numbers"),
        ("runs.parquet", "x", "Parquet"),
        ("runs", None, "a folder saved by Hugging Face datasets has"),
    ],
)
def test_broken_runs_are_an_error(tmp_path, name, content, words):
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    with pytest.raises(jl.DataError, match=f"{name}: .*{words}"):
        jl.sldbench.law("sft", runs=path)


def test_a_law_without_linear_coefficients():
    with pytest.raises(ValueError, match="data_mixing is linear in none of its coefficients"):
        jl.sldbench.law("data_mixing", runs={})


# Coefficients of the user's own.


def test_own_coefficients(tmp_path):
    law = jl.laws["parallel"]
    one, two = law.groups.values()
    groups = {"one": one, "two": two}
    entries = {name: {"coefs": jl.as_dict(coefs)} for name, coefs in groups.items()}
    Path(tmp_path, "coefs.json").write_text(json.dumps({"law": "parallel", "groups": entries}))
    rows = rows_of(columns(law, 20))
    published = jl.sldbench.law("parallel")
    for coefs in (groups, tmp_path / "coefs.json", str(tmp_path / "coefs.json")):
        ours = jl.sldbench.law("parallel", coefs=coefs)
        assert ours(rows, "two") == published(rows, list(law.groups)[1])
        assert ours(rows, "x") == published(rows, "x")  # the mean of the same two groups
    only = jl.sldbench.law("parallel", coefs={"two": two})
    assert only(rows, "one") == only(rows, "two") == ours(rows, "two")
    groups.clear()
    assert only(rows, "two") == ours(rows, "two")


def test_unknown_groups_are_those_that_the_law_says():
    sft = SFT.coefs(L_inf=1.0, A=2.0, alpha=0.5)
    assert jl.sldbench.law("sft", {"a": sft})([{"sft_data_size": 1e4}], "a") == [{"sft_loss": 1.02}]
    assert jl.sldbench.law("sft", {"a": sft})(ROW, "b") == jl.sldbench.law("sft")(ROW, "b")
    moe = jl.laws["moe"]
    row = [{"dense_parameter_count": 1e8, "num_experts": 8}]
    for group in ("b", "all_data"):
        with pytest.raises(KeyError, match=group):
            jl.sldbench.law("moe", {"a": moe.groups["all_data"]})(row, group)
    with pytest.raises(KeyError, match="b"):
        jl.sldbench.law("chinchilla", {"a": jl.laws["chinchilla"].groups["hoffmann2022"]})(
            [{"params": 1e9, "tokens": 1e10}], "b"
        )


def test_own_coefficients_of_more_domains():
    law = jl.laws["domain_mixture"]
    random = np.random.default_rng(0)
    linear, logs = random.normal(size=(2, 7, 7))
    coefs = {"a": law.coefs(intercept=np.ones(7), coef_linear=linear, coef_log=logs)}
    proportions = random.dirichlet(np.ones(7), 3)
    rows = [{f"proportion_domain_{i + 1}": p for i, p in enumerate(row)} for row in proportions]
    expected = 1 + proportions @ linear.T + np.log(proportions + 1e-6) @ logs.T
    np.testing.assert_allclose(values(jl.sldbench.law("domain_mixture", coefs)(rows, "a")), expected, rtol=1e-12)


def test_own_coefficients_with_runs():
    table = sft_runs()
    coefs = {name: SFT.coefs(L_inf=0.0, A=1.0, alpha=0.2) for name in ("a", "z")}
    law = jl.sldbench.law("sft", coefs, table)
    for group, alpha in (("a", 0.2), ("z", 0.2), ("('gpt2', 'flan')", 0.07)):
        np.testing.assert_allclose(law(ROW, group)[0]["sft_loss"], least_squares(table, group, alpha), rtol=1e-9)


@pytest.mark.parametrize("coefs", [{}, 3, [1], {"a": 3}, {"a": {"L_inf": 1}}, {"a": jl.laws["moe"].groups["all_data"]}])
def test_what_are_no_coefficients(coefs):
    with pytest.raises(TypeError, match="sft: coefs "):
        jl.sldbench.law("sft", coefs=coefs)
