"""The commands that search: what the user asks for is what is searched for, and what is found is told."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import jaxlaws as jl
import jaxlaws.cli.mixture as module
from jaxlaws.cli import main

MIXTURE = jl.laws["domain_mixture"]
K = 5


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test starts in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mixtures(run):
    """The rows that `jaxlaws mixture domain_mixture --json` prints."""

    def mixtures(*args, status=0, stdin=b""):
        found, out, err = run("mixture", "domain_mixture", *args, "--json", stdin=stdin)
        assert found == status, err
        return [json.loads(line) for line in out.splitlines()]

    return mixtures


def vector(row, name):
    """The values of a row's columns name_1, name_2, ..."""
    return np.array([row[f"{name}_{i}"] for i in range(1, K + 1)])


def test_the_best_mixture_is_that_of_scipy(mixtures):
    (row,) = mixtures("--group", "410M", "--upper", "0.4", "--weights", "1,1,0,0,2", "--sum", "1,2>=0.45")
    c = MIXTURE.groups["410M"]
    weights = np.array([1, 1, 0, 0, 2])

    def loss(p):
        return weights @ (c.intercept + c.coef_linear @ p + c.coef_log @ np.log(np.maximum(p, 0) + 1e-6))

    sums = [{"type": "eq", "fun": lambda p: p.sum() - 1}, {"type": "ineq", "fun": lambda p: p[0] + p[1] - 0.45}]
    expected = min(
        (
            minimize(loss, start, bounds=[(0, 0.4)] * K, constraints=sums, options={"ftol": 1e-14, "maxiter": 500})
            for start in np.random.default_rng(0).dirichlet(np.ones(K), 20)
        ),
        key=lambda found: found.fun if found.success else np.inf,
    )
    found = vector(row, "proportion_domain")
    np.testing.assert_allclose(found, expected.x, atol=1e-5)
    assert row["loss"] == pytest.approx(loss(found), abs=1e-12)
    assert row["loss"] <= expected.fun + 1e-9
    assert row["converged"] is row["feasible"] is True


def in_range(**options):
    low, high = MIXTURE.inputs.__dataclass_fields__["proportions"].metadata["var"].range
    return {**options, "lower": low, "upper": high}


@pytest.mark.parametrize(
    ("args", "options"),
    [
        ((), {}),
        (("--upper", "3=0.4"), {"upper": [1, 1, 0.4, 1, 1]}),
        (("--upper", "proportion_domain_3=0.4, 5=.1"), {"upper": [1, 1, 0.4, 1, 0.1]}),
        (("--lower", "0.1,0.2,0.1,0,0"), {"lower": [0.1, 0.2, 0.1, 0, 0]}),
        (("--weights", "2=3"), {"weights": [0, 3, 0, 0, 0]}),
        (("--targets", "2.5,3.6,2.5,1.5,3.5"), {"targets": [2.5, 3.6, 2.5, 1.5, 3.5]}),
        (
            ("--available", "1=3e9,3=5e8", "--budget", "1e10", "--max-epochs", "4"),
            {"available": [3e9, np.inf, 5e8, np.inf, np.inf], "budget": 1e10, "max_epochs": 4.0},
        ),
        (
            ("--available", "3=5e8", "--budget", "1e10", "--max-epochs", "3=2"),
            {"available": [np.inf, np.inf, 5e8, np.inf, np.inf], "budget": 1e10, "max_epochs": [1, 1, 2, 1, 1]},
        ),
        (("--prior", "0.2", "--strength", "0.5"), {"prior": [0.2] * 5, "strength": 0.5}),
        (
            ("--sum", "1,2>=0.3", "--sum", "0.1<=4+5<=0.2", "--sum", "3 <= 0.5"),
            {
                "sums": [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 1, 0, 0]],
                "sum_lower": [0.3, 0.1, -np.inf],
                "sum_upper": [np.inf, 0.2, 0.5],
            },
        ),
        (("--in-range",), in_range()),
        (
            ("--upper", "0.4", "--within", "0.2%", "--unconstrained"),
            {"upper": [0.4] * 5, "within": 0.002, "unconstrained": True},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_are_those_of_the_function(mixtures, args, options):
    rows = mixtures(*args)
    assert [row["group"] for row in rows] == list(MIXTURE.groups)
    per_problem = ("budget", "strength")  # as the command gives them, so that nothing is compiled again
    options = {
        name: np.full(4, value) if name in per_problem else value if value is True else np.array(value)
        for name, value in options.items()
    }
    expected = jl.optimize_mixture(MIXTURE, list(MIXTURE.groups), **options)
    for i, row in enumerate(rows):
        np.testing.assert_allclose(vector(row, "proportion_domain"), expected.proportions[i], atol=1e-9)
        np.testing.assert_allclose(vector(row, "loss_domain"), expected.losses[i], rtol=1e-9)
        np.testing.assert_allclose(vector(row, "upper_multipliers"), expected.upper_multipliers[i], atol=1e-7)
        assert vector(row, "at_upper").tolist() == expected.at_upper[i].tolist()
        assert row["loss"] == pytest.approx(expected.loss[i], rel=1e-9)
        for name, option in (("lowest", "within"), ("highest", "within"), ("unconstrained", "unconstrained")):
            assert (f"{name}_1" in row) == (option in options)
            if option in options:
                np.testing.assert_allclose(vector(row, name), getattr(expected, name)[i], atol=1e-6)
        assert ("unconstrained_loss" in row) == ("unconstrained" in options)
        assert ("epochs_1" in row) == ("budget" in options)
        assert ("penalty" in row) == ("prior" in options)
        if "budget" in options:
            shown = [np.nan if x is None else x for x in vector(row, "epochs")]
            np.testing.assert_allclose(np.array(shown, float), expected.epochs[i], atol=1e-7)


def test_all_combinations_of_what_has_several_values(mixtures):
    groups = ("--group", "70M", "--group", "410M")
    rows = mixtures("upper_3=0.1,0.2", *groups, "--budget", "1e10,3e10", "--available", "1e10")
    problems = [(g, upper, budget) for g in ("70M", "410M") for upper in (0.1, 0.2) for budget in (1e10, 3e10)]
    assert [(row["group"], row["upper_3"], row["budget"]) for row in rows] == problems
    names, uppers, budgets = zip(*problems, strict=True)
    upper = np.ones((8, K))
    upper[:, 2] = uppers
    expected = jl.optimize_mixture(
        MIXTURE, list(names), upper=upper, available=np.full(K, 1e10), budget=np.array(budgets), max_epochs=np.ones(K)
    )
    for row, proportions in zip(rows, expected.proportions, strict=True):
        np.testing.assert_allclose(vector(row, "proportion_domain"), proportions, atol=1e-9)


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_problems_from_a_table(run, mixtures, form):
    table = {"run": ["a", "b"], "group": ["410M", "70M"], "lower_2": [0.3, 0.1], "weights_4": [1.0, 0.5]}
    if form == "parquet":
        pq.write_table(jl_table(table), "in.parquet")
    else:
        lines = zip(*table.values(), strict=True)
        if form == "csv":
            text = ",".join(table) + "\n" + "".join(",".join(map(str, line)) + "\n" for line in lines)
        else:
            text = "".join(json.dumps(dict(zip(table, line, strict=True))) + "\n" for line in lines)
        Path(f"in.{form}").write_text(text)
    rows = mixtures(f"in.{form}", "--weights", "1=2")
    assert [{name: row[name] for name in table} for row in rows] == jl_table(table).to_pylist()
    lower, weights = np.zeros((2, K)), np.zeros((2, K))
    lower[:, 1], weights[:, 3], weights[:, 0] = table["lower_2"], table["weights_4"], 2
    expected = jl.optimize_mixture(MIXTURE, table["group"], lower=lower, weights=weights)
    for row, proportions in zip(rows, expected.proportions, strict=True):
        np.testing.assert_allclose(vector(row, "proportion_domain"), proportions, atol=1e-8)
    data = Path(f"in.{form}").read_bytes()
    assert mixtures("-", "--weights", "1=2", stdin=data) == rows


def jl_table(columns):
    import pyarrow as pa

    return pa.table(columns)


def test_predict_reads_what_mixture_writes(run):
    for form in ("csv", "parquet", "jsonl"):
        assert run("mixture", "domain_mixture", "--in-range", "-o", f"out.{form}") == (0, "", "")
        status, out, err = run("predict", "domain_mixture", f"out.{form}", "--json")
        assert (status, err) == (0, "")
        rows = [json.loads(line) for line in out.splitlines()]
        for row in rows:
            np.testing.assert_allclose(vector(row, "predicted_loss_domain"), vector(row, "loss_domain"), rtol=1e-14)
            assert np.mean(vector(row, "loss_domain")) == pytest.approx(row["loss"], rel=1e-14)


def numbers(line):
    return [float(word) for word in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", line)]


def test_one_mixture_for_people(run, mixtures):
    args = ("--group", "410M", "--in-range", "--available", "3=5e8", "--budget", "3e10", "--max-epochs", "3")
    args = (*args, "--lower", "1=0.2", "--sum", "1,5>=0.3", "--sum", "1,5<=0.515")
    (row,) = mixtures(*args)
    status, out, err = run("mixture", "domain_mixture", *args, "--to", "text")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "domain_mixture, group 410M, budget 3e+10"
    assert re.split(r"  +", lines[1]) == ["domain", "proportion", "bound", "multiplier", "epochs", "loss"]
    shown = [line.split() for line in lines[3 : 3 + K]]
    assert [float(words[1]) for words in shown] == [
        pytest.approx(p, abs=6e-5) for p in vector(row, "proportion_domain")
    ]
    assert shown[1][2:4] == ["<=", "0.1875"]
    assert float(shown[1][4]) == pytest.approx(row["upper_multipliers_2"], rel=1e-2)
    assert shown[2][2:4] == ["3", "epochs"]
    assert shown[0][2:4] == [">=", "0.2"]
    assert float(shown[0][4]) == pytest.approx(row["lower_multipliers_1"], rel=1e-2)
    assert [float(words[-1]) for words in shown] == [pytest.approx(x, abs=6e-5) for x in vector(row, "loss_domain")]
    total = row["proportion_domain_1"] + row["proportion_domain_5"]
    below, above = lines[-4:-2]
    assert below.startswith("1,5>=0.3")
    assert numbers(below.split("0.3", 1)[1])[:1] == [pytest.approx(total, abs=6e-5)]
    assert above.startswith("1,5<=0.515")
    assert float(above.split()[-1]) == pytest.approx(row["sum_multipliers_2"], rel=1e-2)
    sentence = lines[-1]
    assert sentence.startswith(f"loss {row['loss']:.6g}; no mixture within the bounds is better by more than ")
    assert row["gap"] <= numbers(sentence)[-1] == 1e-12


def test_the_cost_of_the_bounds_for_people(run, mixtures):
    args = ("--group", "70M", "--upper", "0.4", "--within", "0.2%", "--unconstrained")
    (row,) = mixtures(*args)
    lines = run("mixture", "domain_mixture", *args, "--to", "text")[1].splitlines()
    assert re.split(r"  +", lines[1])[-4:] == ["lowest", "highest", "without bounds", "loss"]
    for i, line in enumerate(lines[3 : 3 + K], 1):
        expected = [row[f"{name}_{i}"] for name in ("lowest", "highest", "unconstrained")]
        assert list(map(float, line.split()[-4:-1])) == [pytest.approx(x, abs=6e-5) for x in expected]
    assert lines[-1] == f"without bounds it would be {row['unconstrained_loss']:.6g}"


def test_several_mixtures_for_people(run, mixtures):
    rows = mixtures("--in-range", "--prior", "0.2", "strength=0,0.01")
    status, out, err = run(
        "mixture", "domain_mixture", "--in-range", "--prior", "0.2", "strength=0,0.01", "--to", "text"
    )
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["group", "strength", *"domain 1 domain 2 domain 3 domain 4 domain 5 loss".split()]
    for row, line in zip(rows, lines[2 : 2 + len(rows)], strict=True):
        group, strength, *proportions, loss = line.split()
        assert (group, float(strength)) == (row["group"], row["strength"])
        np.testing.assert_allclose(np.array(proportions, float), vector(row, "proportion_domain"), atol=6e-5)
        assert float(loss) == pytest.approx(row["loss"], abs=6e-5)
    assert lines[-1].startswith("no mixture within the bounds is better by more than ")
    run("mixture", "domain_mixture", "--in-range", "--to", "text", "-o", "out.csv")
    assert Path("out.csv").read_text().startswith("group")


def test_a_long_table_is_cut_for_people(run, monkeypatch):
    monkeypatch.setattr(module, "SHOWN_ROWS", 3)
    status, out, _ = run("mixture", "domain_mixture", "--in-range", "--to", "text")
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 2 + 3 + 1 + 2)
    assert lines[5] == "... and 1 more rows; -o FILE keeps them all"


def test_how_far_from_the_best_an_answer_can_be(run, mixtures):
    args = ("--group", "70M", "--targets", "0")
    (row,) = mixtures(*args)
    assert row["gap"] > 1e-3  # the worst output of a law that is not convex
    told = numbers(run("mixture", "domain_mixture", *args, "--to", "text")[1].splitlines()[-1])[-1]
    assert row["gap"] <= told < 2 * row["gap"]


def test_an_answer_of_which_nothing_is_known_says_so(run, monkeypatch):
    monkeypatch.setattr(module, "optimize_mixture", changed(gap=np.full(4, np.inf)))
    status, out, _ = run("mixture", "domain_mixture", "--in-range", "--to", "text")
    assert (status, out.splitlines()[-1]) == (0, "whether another mixture is better is not known")


def changed(**fields):
    """The search, with other values of some fields of its answer."""

    def search(*args, **options):
        return dataclasses.replace(jl.optimize_mixture(*args, **options), **fields)

    return search


def test_warns_of_what_lies_outside_the_range(run):
    status, _, err = run("mixture", "domain_mixture", "--upper", "2=0.1,3=0.3")
    assert status == 0
    assert err.startswith("jaxlaws: warning: 4 of 4 rows outside the range that domain_mixture was fitted on: ")
    assert "proportion_domain_3 in 4 (fitted on 0 to 0.09375)" in err
    assert "proportion_domain_2" not in err
    assert err.endswith("; --in-range searches only there\n")
    assert err.count("\n") == 1
    for more in ((), ("--prior", "0.2", "--strength", "0.1"), ("--sum", "1,5>=0.6", "--sum", "1<=1", "--sum", "2<=1")):
        assert run("mixture", "domain_mixture", "--in-range", *more)[::2] == (0, ""), more


# What has no answer: exit status 1.


def test_bounds_that_contradict_each_other(run):
    contradiction = ("--sum", "1,2>=0.6", "--sum", "3,4,5>=0.6")
    status, out, err = run("mixture", "domain_mixture", "--group", "70M", *contradiction, "--to", "text")
    assert (status, out) == (1, "")
    assert err == "jaxlaws: no mixture is within all bounds on sums\n"
    status, out, err = run("mixture", "domain_mixture", *contradiction, "--to", "text")
    assert status == 1
    assert [line.split() for line in out.splitlines()[2:]] == [[group, "none"] for group in MIXTURE.groups]
    assert err.startswith("jaxlaws: 4 of 4 without an answer: group 160M: no mixture is within all bounds on sums; ")
    assert err.count("\n") == 1
    status, out, err = run("mixture", "domain_mixture", *contradiction, "-o", "out.jsonl")
    assert (status, out) == (1, "")
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["feasible"] for row in rows] == [row["converged"] for row in rows] == [False] * 4


def test_those_with_an_answer_are_shown_beside_those_without(run):
    status, out, err = run(
        *("mixture", "domain_mixture", "--group", "70M", "upper_1=0.2,0.1", "--sum", "1>=0.15", "--to", "text")
    )
    assert status == 1
    assert "jaxlaws: 1 of 2 without an answer: upper_1 0.1: no mixture is within all bounds on sums\n" in err
    first, second = out.splitlines()[2:4]
    assert len(first.split()) == 2 + K + 1
    assert second.split() == ["70M", "0.1", "none"]


def test_a_search_that_does_not_end_says_so(run, monkeypatch):
    unfinished = changed(converged=np.array([True, False, True, True]), steps=np.full(4, 99))
    monkeypatch.setattr(module, "optimize_mixture", unfinished)
    status, out, err = run("mixture", "domain_mixture", "--in-range", "--to", "text")
    assert status == 1
    assert err == "jaxlaws: 1 of 4 without an answer: group 305M: the search did not end at the best in 99 steps\n"
    assert [line.split()[7:] for line in out.splitlines()[2:6]] == [[], ["not", "the", "best"], [], []]


# Bad input: one line, exit status 2.


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("sft",), "sft has no proportions of domains to search for; domain_mixture"),
        (("domain_mixtures",), "did you mean 'domain_mixture'?"),
        (("domain_mixture", "--group", "70"), "did you mean '70M'?"),
        (("domain_mixture", "--upper", "0.1"), "no mixture: the upper bounds"),
        (("domain_mixture", "--upper", "0.1", "--group", "70M"), "domain_mixture: no mixture: the upper bounds"),
        (("domain_mixture", "--upper", "0.4,0.4"), "--upper: domain_mixture has 5 domains, not 2; give one number"),
        (("domain_mixture", "--upper", "6=0.4"), "--upper: no domain '6'; domain_mixture has domains 1 to 5"),
        (("domain_mixture", "--upper", "0=0.4"), "--upper: no domain '0'"),
        (("domain_mixture", "--upper", "3=0.4,3=0.5"), "'3=0.4,3=0.5' is not a list like 3=0.4,5=0.1"),
        (("domain_mixture", "--upper", "3=x"), "'3=x' is not a list like 3=0.4,5=0.1"),
        (("domain_mixture", "--upper", "nan"), "'nan' is not a list of numbers"),
        (("domain_mixture", "--lower=-1"), "--lower must not be negative"),
        (("domain_mixture", "--within", "x"), "'x' is not a positive number like 1% or 0.01"),
        (("domain_mixture", "--within", "0"), "'0' is not a positive number"),
        (("domain_mixture", "--sum", "1,2"), "'1,2' is not of the form '1,2>=0.3'"),
        (("domain_mixture", "--sum", "1,2>0.3"), "is not of the form"),
        (("domain_mixture", "--sum", "0.1>=1,2>=0.3"), "is not of the form"),
        (("domain_mixture", "--sum", "1,2>=x"), "is not of the form"),
        (("domain_mixture", "--sum", "1,7>=0.3"), "--sum: no domain '7'"),
        (("domain_mixture", "--budget", "1e9"), "--budget needs --available"),
        (("domain_mixture", "budget=1e9"), "--budget needs --available"),
        (("domain_mixture", "--available", "1e9"), "--available needs --budget"),
        (("domain_mixture", "--max-epochs", "4"), "--max-epochs needs --available and --budget"),
        (("domain_mixture", "--prior", "0.2"), "--prior needs --strength"),
        (("domain_mixture", "--prior", "0.2", "--strength", "-1"), "strength must not be negative"),
        (("domain_mixture", "--budget", "0", "--available", "1e9"), "budget must be positive"),
        (("domain_mixture", "--weights", "1,1,1,1,1", "--targets", "0"), "give --weights or --targets, not both"),
        (("domain_mixture", "upper_6=0.1"), "unknown name 'upper_6'; did you mean 'upper_"),
        (("domain_mixture", "upper_3=x"), "upper_3 takes numbers"),
        (("domain_mixture", "upper_3=nan"), "not a number"),
        (("domain_mixture", "strength=1", "--prior", "0.2", "--strength", "1"), "'strength' is given here and by"),
        (("domain_mixture", "a.csv", "b.csv"), "'b.csv' is a second one"),
        (("domain_mixture", "--upper", "0.5", "a.csv"), "a.csv: No such file"),
        (("domain_mixture", "--uper", "0.5"), "unrecognized arguments: --uper"),
        (("domain_mixture", "-o", "out.xls"), "out.xls: the format of a file"),
        ((), "required: LAW"),
    ],
)
def test_bad_arguments(run, args, words):
    status, out, err = run("mixture", *args)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert words in err
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("group,upper_3\n70M,0.1\n71M,0.1\n", "in.csv: column 'group', row 2: unknown group of domain_mixture '71M'"),
        ("upper_3\n0.1\nx\n", "in.csv: column 'upper_3' must hold numbers: 'x' in row 2"),
        ("upper_3\n0.1\n\n0.2\n", ""),
        ("upper_3,lower_3\n0.1,0.05\n0.1,0.2\n", "no mixture for row 2: the lower bound of domain 3 is above"),
        ("upper_3\n", "in.csv: the table has no rows"),
        ("upper_3,loss\n0.1,1\n", "there is a column 'loss' already; rename or drop it"),
        ("", "in.csv: the file is empty"),
    ],
)
def test_bad_tables(run, text, words):
    Path("in.csv").write_text(text)
    status, _, err = run("mixture", "domain_mixture", "in.csv", *(() if "group" in text else ("--group", "70M")))
    if words:
        assert (status, err.count("\n")) == (2, 1), err
        assert words in err
    else:
        assert status == 0


def test_help_shows_examples_that_run(run):
    for name in ("mixture",):
        status, text, _ = run(name, "--help")
        assert status == 0
        examples = re.findall(rf"^  jaxlaws ({name} .*)$", text, re.MULTILINE)
        assert len(examples) >= 3
        for example in examples:
            words = example.replace("'", "").split(" | ")[0].split()
            assert run(*words)[0] == 0, example


WORDS = st.sampled_from(
    "domain_mixture sft in.csv none.csv - upper_3=0.1 upper_3=x group=70M = --group 70M --upper --lower --weights 0.4 "
    "3=0.4 9=1 1,1,0,0,1 --sum 1,2>=0.3 1,2 --available 1e9 --budget 1e9,1e10 --max-epochs --prior --strength 0.2 "
    "--in-range --json --to csv text -o out.csv".split(" ")
)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["domain_mixture", ""]), st.lists(WORDS, max_size=6))
def test_any_arguments_end_well(law, words):
    Path("in.csv").write_text("group,upper_3\n70M,0.1\n")
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(Path("in.csv").read_bytes()))))
        try:
            status = main(["mixture", *([law] if law else []), *words])
        except SystemExit as stop:
            status = stop.code
    assert status in (0, 1, 2)
    if status:
        last = err.getvalue().splitlines()[-1]
        assert last.startswith("jaxlaws")
        assert "warning" not in last
    assert set(os.listdir()) <= {"in.csv", "out.csv"}
