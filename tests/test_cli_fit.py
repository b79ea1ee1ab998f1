"""The command that fits: what it prints, what it writes, and what it says when something is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sampling import columns

import jaxlaws as jl
from jaxlaws.cli import fitting

SFT = jl.laws["sft"]
SIZES = np.geomspace(200, 4e5, 9)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test starts in an empty folder."""
    monkeypatch.chdir(tmp_path)


def runs_of(law, groups, count, noise=0.003):
    """Runs of a law with noise."""
    random = np.random.default_rng(0)
    tables = []
    for seed, (group, coefs) in enumerate(groups.items()):
        inputs = columns(law, count, seed=seed)
        found = jl.predict_table(law, inputs, coefs)
        found = {
            **found,
            **{name: found[name] * (1 + noise * random.normal(size=count)) for name in law.output_columns},
        }
        tables.append(pa.table({"group": [group] * count, **found}))
    return pa.concat_tables(tables)


def sft_runs():
    random = np.random.default_rng(0)
    table = {"corpus": [], "sft_data_size": [], "sft_loss": [], "times": []}
    for group, level in (("a", 1.0), ("b", 2.0)):
        table["corpus"] += [group] * len(SIZES)
        table["sft_data_size"] += SIZES.tolist()
        table["sft_loss"] += (level + 5 * SIZES**-0.3 + 0.01 * random.normal(size=len(SIZES))).tolist()
        table["times"] += random.integers(1, 4, len(SIZES)).tolist()
    return pa.table(table)


def least_squares(table, group, alpha):
    """L_inf and A for a known exponent, their standard errors, and R2, by NumPy."""
    chosen = np.array(table["corpus"]) == group
    x, y, w = (table[name].to_numpy()[chosen] for name in ("sft_data_size", "sft_loss", "times"))
    matrix = np.stack([np.ones_like(x), x**-alpha], 1)
    root = np.sqrt(w)
    found = np.linalg.lstsq(matrix * root[:, None], y * root)[0]
    error = matrix @ found - y
    inverse = np.linalg.inv((matrix.T * w) @ matrix)
    stderr = np.sqrt(np.diag(inverse) * (w * error**2).sum() / (len(x) - 2))
    return found, stderr, 1 - (error**2).sum() / ((y - y.mean()) ** 2).sum()


OPTIONS = ("--group", "corpus", "--weights", "times", "--fixed", "alpha=0.3", "--objective", "squared")


def test_shows_each_group_with_standard_errors_and_r2(run):
    table = sft_runs()
    pq.write_table(table, "runs.parquet")
    status, out, err = run("fit", "sft", "runs.parquet", *OPTIONS)
    assert (status, err) == (0, "")
    heading, header, _, *rows = out.splitlines()
    assert heading == "sft, 2 groups, 18 runs, squared errors, alpha fixed"
    assert header.split() == ["group", "L_inf", "A", "alpha", "R2"]
    for row, group in zip(rows, "ab", strict=False):
        name, level, level_error, size, size_error, alpha, r2 = row.replace("±", " ").split()
        assert (name, alpha) == (group, "0.3")
        expected, stderr, expected_r2 = least_squares(table, group, 0.3)
        for text, value in ((level_error, stderr[0]), (size_error, stderr[1])):
            assert float(text) == float(f"{value:.1e}")
            assert len(text.replace(".", "").lstrip("0")) == 2
        for text, error_text, value in ((level, level_error, expected[0]), (size, size_error, expected[1])):
            decimals = len(error_text.partition(".")[2])
            assert text == f"{value:.{decimals}f}"
        assert r2 == f"{expected_r2:.6f}"
    assert re.fullmatch(r"R2 of all runs 0\.99\d{4}", out.splitlines()[-1])


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl", "-"])
def test_writes_what_it_prints_as_json_from_any_format(run, form):
    table = sft_runs()
    data = b""
    if form == "parquet":
        pq.write_table(table, "runs.parquet")
    elif form == "csv":
        pyarrow.csv.write_csv(table, "runs.csv")
    else:
        data = "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()
        if form == "jsonl":
            Path("runs.jsonl").write_bytes(data)
    name = "-" if form == "-" else f"runs.{form}"
    status, out, err = run("fit", "sft", name, *OPTIONS, "--json", "-o", "coefs.json", stdin=data)
    assert (status, err) == (0, "")
    assert Path("coefs.json").read_text() == out
    content = json.loads(out)
    assert (content["law"], content["objective"]) == ("sft", "squared")
    assert content["range"] == {"sft_data_size": [pytest.approx(200), pytest.approx(4e5)]}
    for group, coefs in jl.read_coefs("coefs.json").items():
        expected, stderr, _ = least_squares(table, group, 0.3)
        np.testing.assert_allclose([coefs.L_inf, coefs.A, coefs.alpha], [*expected, 0.3], rtol=1e-9)
        found = content["groups"][group]["stderr"]
        np.testing.assert_allclose([found["L_inf"], found["A"], found["alpha"]], [*stderr, 0], rtol=1e-8)
    assert run("fit", "sft", name, *OPTIONS, "-o", "-", stdin=data) == (0, out, "")


def test_options_are_those_of_the_function(run):
    table = sft_runs()
    pq.write_table(table, "runs.parquet")
    words = "--shared alpha --bounds L_inf=1.2:,A=:9 --bounds alpha=0.1:0.9 --starts 3 --seed 5 --objective relative"
    status, out, _ = run("fit", "sft", "runs.parquet", "--group-column", "corpus", *words.split(), "--json")
    bounds = {"L_inf": (1.2, None), "A": (None, 9.0), "alpha": (0.1, 0.9)}
    options = {"shared": ["alpha"], "bounds": bounds, "starts": 3, "seed": 5, "objective": "relative"}
    expected = jl.fit(SFT, table, "corpus", **options)
    expected.save("coefs.json")
    assert (status, out) == (0, Path("coefs.json").read_text())
    alphas = {coefs.alpha for coefs in expected.coefs.values()}
    assert len(alphas) == 1
    assert expected.coefs["a"].L_inf == 1.2
    assert json.loads(out)["groups"]["a"]["flags"] == ["on a bound: L_inf"]


def test_shared_none(run, monkeypatch):
    seen, table = [], sft_runs()
    found = jl.fit(SFT, table, "corpus", fixed={"alpha": 0.3})
    monkeypatch.setattr(fitting, "fit_runs", lambda runs, **options: seen.append(options) or found)
    pq.write_table(table, "runs.parquet")
    assert run("fit", "sft", "runs.parquet", "--shared", "none")[0] == 0
    assert run("fit", "sft", "runs.parquet", "--shared", "A, alpha")[0] == 0
    assert [options["shared"] for options in seen] == [[], ["A", "alpha"]]


def test_one_group_shows_what_each_coefficient_is(run):
    pq.write_table(sft_runs(), "runs.parquet")
    status, out, _ = run("fit", "sft", "runs.parquet")
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == "sft, group all_data, 18 runs, squared errors"
    found = [re.split("  +", line.strip()) for line in lines[3:6]]
    assert [(row[0], *row[-2:]) for row in found] == [(v.name, v.unit, v.description) for v in jl.variables(SFT.coefs)]
    assert all(float(number) >= 0 for row in found for number in row[1:-2])
    assert re.fullmatch(r"R2 0\.\d{6}; \d+% of the starts converged here", lines[7])


def wide(out):
    """The lines of tables."""
    return [line for line in out.splitlines() if re.search(r"   |──", line)]


def test_many_groups_in_100_columns(run):
    pq.write_table(runs_of(SFT, SFT.groups, 12), "runs.parquet")
    status, out, _ = run("fit", "sft", "runs.parquet", "--fixed", "L_inf=0", "--bounds", "alpha=0.06:")
    lines = out.splitlines()
    assert status == 0
    assert max(map(len, wide(out))) <= 100
    rows = {name: next(line for line in lines if line.startswith(name)) for name in SFT.groups}
    assert "in brackets: standard errors, in units of the last digit" in lines
    notes = [line for line in lines if re.match(r"\d  ", line)]
    assert notes == ["1  on a bound: alpha"]
    for name, coefs in SFT.groups.items():
        assert rows[name].endswith(" 1") == (coefs.alpha < 0.058) or 0.058 < coefs.alpha < 0.062
        bracketed = re.search(r"(\d\.\d+)\((\d\d)\) +0\.\d+", rows[name])
        if coefs.L_inf == 0 and coefs.alpha > 0.062:
            unit = 10.0 ** -len(bracketed[1].partition(".")[2])
            assert abs(float(bracketed[1]) - coefs.A) < 5 * int(bracketed[2]) * unit


@pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")
def test_a_column_per_group_where_rows_are_too_wide(run):
    law = jl.laws["data_constrained"]
    groups = {f"group {i}": law.groups["all_data"] for i in range(7)}
    pq.write_table(runs_of(law, groups, 12), "runs.parquet")
    fixed = ",".join(f"{name}={getattr(groups['group 0'], name)}" for name in ("alpha", "beta", "gamma", "delta"))
    status, out, _ = run("fit", "data_constrained", "runs.parquet", "--fixed", fixed)
    assert status == 0
    assert max(map(len, wide(out))) <= 100
    headers = [re.findall(r"group \d", line) for line in out.splitlines() if line.startswith("coefficient")]
    assert len(headers) > 1
    assert [name for header in headers for name in header] == list(groups)
    for name in "abcde":
        assert len(re.findall(rf"^{name} .* ± .* ± .* nat/token", out, re.MULTILINE)) >= len(headers) - 1


def test_matrices(run):
    law, size = jl.laws["domain_mixture"], 7
    random = np.random.default_rng(0)
    proportions = random.dirichlet(np.ones(size), 60)
    linear = random.normal(size=(size, size))
    losses = 3 + proportions @ linear.T + 0.01 * random.normal(size=(60, size))
    table = {f"proportion_domain_{i + 1}": column for i, column in enumerate(proportions.T)}
    table |= {f"loss_domain_{i + 1}": column for i, column in enumerate(losses.T)}
    pq.write_table(pa.table(table), "runs.parquet")
    fixed = ("--fixed", "intercept=3,coef_log=0", "-o", "coefs.json")
    status, out, err = run("fit", "domain_mixture", "runs.parquet", *fixed)
    assert (status, err) == (0, "")
    assert max(map(len, wide(out))) <= 100
    (coefs,) = jl.read_coefs("coefs.json", law).values()
    expected = np.linalg.lstsq(proportions, losses - 3)[0].T
    np.testing.assert_allclose(coefs.coef_linear, expected, rtol=1e-9, atol=1e-12)
    headers = [line.split()[1:] for line in out.splitlines() if line.startswith("coefficient")]
    assert len(headers) == 2
    assert headers[0] + headers[1] == [f"[{i}]" for i in range(size)]
    shown = {i: [] for i in range(size)}
    for line in out.splitlines():
        if row := re.match(r"coef_linear\[(\d)\] +(.*)", line):
            shown[int(row[1])] += row[2].split()
    for i, texts in shown.items():
        for text, value in zip(texts, expected[i], strict=True):
            number, digits = re.fullmatch(r"(-?\d\.\d+)\((\d\d)\)", text).groups()
            assert number == f"{value:.{len(number.partition('.')[2])}f}"
            assert 0.001 < int(digits) * 10.0 ** -len(number.partition(".")[2]) < 0.05


def test_a_search_that_did_not_converge_has_status_1(run, monkeypatch):
    table = sft_runs()
    pq.write_table(table, "runs.parquet")
    whole = jl.fit(SFT, table, "corpus", fixed={"alpha": 0.3})
    stopped = dataclasses.replace(whole, converged={"a": True, "b": False}, flags={"a": (), "b": ("it did not",)})
    monkeypatch.setattr(fitting, "fit_runs", lambda *_, **__: stopped)
    status, out, err = run("fit", "sft", "runs.parquet", "-o", "coefs.json")
    assert (status, err) == (1, "jaxlaws: 1 of 2 groups did not converge: 'b'\n")
    assert "1  it did not" in out
    assert list(jl.read_coefs("coefs.json")) == ["a", "b"]
    only = {key: {"b": getattr(stopped, key)["b"]} for key in ("coefs", "stderr", "converged", "share", "flags")}
    monkeypatch.setattr(fitting, "fit_runs", lambda *_, **__: dataclasses.replace(stopped, **only))
    assert run("fit", "sft", "runs.parquet")[::2] == (1, "jaxlaws: the search did not converge\n")


@pytest.mark.parametrize(
    ("value", "error", "text", "brief"),
    [
        (0.97604, 0.1204, "0.98 ± 0.12", "0.98(12)"),
        (0.97604, 0.0996, "0.98 ± 0.10", "0.98(10)"),
        (0.976, 0.00996, "0.976 ± 0.010", "0.976(10)"),
        (63.4, 14.6, "63 ± 15", "63(15)"),
        (5.06, 2.83, "5.1 ± 2.8", "5.1(28)"),
        (12973.1, 34196, "13000 ± 34000", "13000(34000)"),
        (-1.445, 6.765, "-1.4 ± 6.8", "-1.4(68)"),
        (0.0, 0.25, "0.00 ± 0.25", "0.00(25)"),
        (1.87366589e7, 1.21e5, "1.874e+07 ± 1.2e+05", "1.874e+07 ± 1.2e+05"),
        (3.2e-9, 1.44e-10, "3.2e-09 ± 1.4e-10", "3.2e-09 ± 1.4e-10"),
        (0.97603613, 2.5e-13, "0.97603613 ± 2.5e-13", "0.97603613 ± 2.5e-13"),
        (1.8316, math.inf, "1.83 ± inf", "1.83"),
        (0.35, 0.0, "0.35", "0.35"),
        (0.0, math.nan, "0", "0"),
        (math.nan, math.nan, "nan", "nan"),
    ],
)
def test_standard_errors_have_two_digits(value, error, text, brief):
    assert (fitting._text(value, error), fitting._brief(value, error)) == (text, brief)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sfd runs.csv", "unknown law 'sfd'; did you mean 'sft'?"),
        ("sft none.csv", "none.csv: No such file or directory"),
        ("sft text.csv", "text.csv: column 'sft_loss' must hold numbers: 'x' in row 2"),
        ("sft empty.csv", "empty.csv: the table has no rows"),
        ("parallel runs.csv", "runs.csv: no column 'num_params'"),
        ("sft runs.csv --group model", "runs.csv: no column 'model'"),
        ("sft runs.csv --weights w", "runs.csv: no column 'w'"),
        ("sft runs.csv --weights sft_loss", "runs.csv: column 'sft_loss' must be at least 0 and finite: row 2"),
        ("sft runs.csv --objective huber_log", "'sft_loss' must be positive for objective 'huber_log': row 2"),
        ("sft runs.csv --objective absolute", "invalid choice: 'absolute'"),
        ("sft runs.csv --fixed beta=1", "sft has no coefficient 'beta'; it has L_inf, A, alpha"),
        ("sft runs.csv --shared beta", "sft has no coefficient 'beta'; it has L_inf, A, alpha"),
        ("sft runs.csv --bounds beta=1:2", "sft has no coefficient 'beta'; it has L_inf, A, alpha"),
        ("sft runs.csv --bounds alpha=2:1", "the bounds of alpha leave nothing between 2.0 and 1.0"),
        ("sft runs.csv --bounds alpha=1", "'1' is not a range like 0:3, 0: or :3"),
        ("sft runs.csv --bounds alpha=x:1", "'x' is not a number"),
        ("sft runs.csv --fixed alpha", "'alpha' is not a list like alpha=0.35,E=1.7"),
        ("sft runs.csv --fixed alpha=inf", "'inf' is not a number"),
        ("sft runs.csv --fixed alpha=1,alpha=2", "'alpha' is given twice"),
        ("sft runs.csv --fixed alpha=1 --fixed alpha=2", "--fixed: 'alpha' is given twice"),
        ("sft runs.csv --fixed alpha=1,A=2,L_inf=3", "all coefficients are fixed; there is nothing to fit"),
        ("sft runs.csv --starts 0", "'0' is not a number of starts"),
        ("sft runs.csv --seed x", "'x' is not a whole number"),
        ("sft runs.csv -o no/coefs.json", "no/coefs.json: No such file or directory"),
        ("sft runs.csv more.csv", "unrecognized arguments: more.csv"),
        ("sft", "the following arguments are required: FILE"),
    ],
)
def test_bad_input_gets_one_line(run, words, said):
    Path("runs.csv").write_text("sft_data_size,sft_loss\n1e3,3\n1e4,-2\n1e5,2\n")
    Path("text.csv").write_text("sft_data_size,sft_loss\n1e3,3\n1e4,x\n")
    Path("empty.csv").write_text("sft_data_size,sft_loss\n")
    before = sorted(os.listdir())
    status, out, err = run("fit", *words.split())
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("jaxlaws")
    assert said in err
    assert sorted(os.listdir()) == before


def test_an_error_leaves_the_output_that_was_there(run):
    Path("runs.csv").write_text("sft_data_size,sft_loss\n1e3,x\n")
    Path("coefs.json").write_text("precious")
    assert run("fit", "sft", "runs.csv", "-o", "coefs.json")[0] == 2
    assert Path("coefs.json").read_text() == "precious"
    assert sorted(os.listdir()) == ["coefs.json", "runs.csv"]


def test_help_has_examples(run):
    status, out, _ = run("fit", "--help")
    assert status == 0
    assert "examples:\n  jaxlaws fit " in out
    assert re.search(r"\n +fit +fit a law to measured runs\n", run("--help")[1])
