"""The commands that search: what the user asks for is what is searched for, and what is found is told."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shlex
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
import jaxlaws.cli.search
from jaxlaws.cli import allocation, main
from jaxlaws.optimize import costs

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")  # answers far from all runs are answers here

MIXTURE = jl.laws["domain_mixture"]
K = 5
MOE = ("--expert-share", "0.5", "--power-of-two", "num_experts")


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


def test_a_cost_in_a_file(run, tmp_path):
    (tmp_path / "own.py").write_text("NUMBER = 3\n\n\ndef dollars(x):\n    return 2e-18 * x.params * x.tokens\n")
    args = ("allocate", "chinchilla", "--group", "besiroglu2024", "--json")
    status, out, _ = run(*args, "--budget", "1e4", "--cost", f"{tmp_path}/own.py:dollars")
    assert status == 0
    expected = json.loads(run(*args, "--budget", "3e22")[1])
    np.testing.assert_allclose(json.loads(out)["params"], expected["params"], rtol=1e-9)
    for name, words in (("NUMBER", "own.py has no function called 'NUMBER'"), ("x", "no function called 'x'")):
        assert words in run(*args, "--budget", "1e4", "--cost", f"{tmp_path}/own.py:{name}")[2]
    assert "none.py: FileNotFoundError" in run(*args, "--budget", "1", "--cost", f"{tmp_path}/none.py:x")[2]


def test_an_input_that_ends_as_far_as_is_tried_is_told(run):
    _, _, err = run("allocate", "farseer", "--budget", "1e22")
    assert "--in-range searches only there; params ends at 1e+18, as far as is tried; give --upper params=..." in err
    status, _, err = run("allocate", "precision", "--group", "table2", "--budget", "1e22", "weight_bits=8")
    message = "precision: activation_bits costs nothing, and the more the better; give activation_bits, or --upper "
    assert (status, err) == (2, f"jaxlaws: {message}activation_bits=..., --in-range, or another --cost\n")
    status, _, err = run("allocate", "step_law", "--budget", "1e22")
    assert (status, err[:44]) == (2, "jaxlaws: step_law has no loss to minimise; c")


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
            {"available": [3e9, np.inf, 5e8, np.inf, np.inf], "budget": 1e10, "max_epochs": [4.0] * K},
        ),
        (
            ("--available", "3=5e8", "--budget", "1e10", "--max-epochs", "3=2"),
            {"available": [np.inf, np.inf, 5e8, np.inf, np.inf], "budget": 1e10, "max_epochs": [1, 1, 2, 1, 1]},
        ),
        (("--prior", "0.2", "--strength", "0.5"), {"prior": [0.2] * 5, "strength": 0.5}),
        (
            ("--sum", "1,2>=0.3", "--sum", "0.1<=4+5<=0.2", "--sum", "3 <= 0.5", "--sum", "1,3=0.2"),
            {
                "sums": [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 1, 0, 0], [1, 0, 1, 0, 0]],
                "sum_lower": [0.3, 0.1, -np.inf, 0.2],
                "sum_upper": [np.inf, 0.2, 0.5, 0.2],
            },
        ),
        (("--in-range",), {"in_range": True}),
        (
            ("--upper", "0.4", "--within", "0.2%", "--unconstrained"),
            {"upper": [0.4] * 5, "within": 0.002, "unconstrained": True},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_are_those_of_the_function(asked, args, options):
    law, groups, given = asked(module, "optimize_mixture", "mixture", "domain_mixture", *args)
    assert (law, groups) == (MIXTURE, list(MIXTURE.groups))
    assert given.keys() == options.keys()
    for name, value in options.items():
        assert np.shape(given[name]) == ((4,) if name in ("budget", "strength") else np.shape(value))
        np.testing.assert_array_equal(given[name], np.broadcast_to(value, np.shape(given[name])))


@pytest.fixture
def asked(run, monkeypatch):
    """What the command asks of a search, which is not done."""

    def asked(module, name, *args):
        found = []

        def search(law, groups, inputs, **options):
            found.extend((law, groups, {**inputs, **options}))
            raise ValueError("that is enough")

        monkeypatch.setattr(module, name, search)
        assert run(*args) == (2, "", "jaxlaws: that is enough\n")
        return found

    return asked


def test_all_that_is_known_is_written(mixtures):
    rows = mixtures(
        *("--available", "1=3e9,3=5e8", "--budget", "1e10", "--max-epochs", "4", "--prior", "0.2", "--strength", "0.1"),
        *("--sum", "1,2>=0.3", "--sum", "4,5<=0.6", "--sum", "3>=0.01", "--sum", "5<=0.4"),
        *("--within", "0.2%", "--unconstrained", "--upper", "0.4"),
    )
    available = np.array([3e9, np.inf, 5e8, np.inf, np.inf])
    expected = jl.optimize_mixture(
        *(MIXTURE, list(MIXTURE.groups)),
        **{"available": available, "budget": np.full(4, 1e10), "max_epochs": np.full(K, 4.0)},
        **{"prior": np.full(K, 0.2), "strength": np.full(4, 0.1), "upper": np.full(K, 0.4)},
        **{"sums": np.array([[1.0, 1, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]])},
        **{"sum_lower": np.array([0.3, -np.inf, 0.01, -np.inf]), "sum_upper": np.array([np.inf, 0.6, np.inf, 0.4])},
        **{"within": np.array(0.002), "unconstrained": True},
    )
    called = {"proportions": "proportion_domain", "losses": "loss_domain"}
    known = set()
    outside = expected.extrapolated.proportions
    for v in jl.variables(jl.Mixture):
        values, shape = (outside, ("domain",)) if v.name == "extrapolated" else (getattr(expected, v.name), v.shape)
        for row, value in zip(rows, values, strict=True):
            names = [f"{called.get(v.name, v.name)}_{i}" for i in range(1, np.size(value) + 1)] if shape else [v.name]
            found = [np.nan if row[name] is None else row[name] for name in names]
            np.testing.assert_allclose(found, np.ravel(value), rtol=1e-6, atol=1e-9)
            known.update(names)
    assert rows[0].keys() == known | {"group", "budget", "strength"}


def test_what_was_not_asked_for_is_not_written(mixtures):
    (row, *_) = mixtures("--in-range")
    for name in ("epochs", "lowest", "highest", "unconstrained", "sum_multipliers", "penalty"):
        assert not any(column.startswith(name) for column in row)


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


def test_weights_below_0_are_shown(run):
    lines = run("mixture", "domain_mixture", "--group", "70M", "--weights", "-1,1,1,1,1", "--to", "text")[
        1
    ].splitlines()
    assert [line.split()[-1] for line in lines[3 : 3 + K]] == ["-1", "1", "1", "1", "1"]


def test_several_mixtures_for_people(run, mixtures):
    args = ("--in-range", "--prior", "0.2", "strength=0.01")
    rows = mixtures(*args)
    status, out, err = run("mixture", "domain_mixture", *args, "--to", "text")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "domain_mixture, strength 0.01"
    assert lines[1].split() == ["group", *"domain 1 domain 2 domain 3 domain 4 domain 5 loss".split()]
    for row, line in zip(rows, lines[3 : 3 + len(rows)], strict=True):
        group, *proportions, loss = line.split()
        assert group == row["group"]
        np.testing.assert_allclose(np.array(proportions, float), vector(row, "proportion_domain"), atol=6e-5)
        assert float(loss) == pytest.approx(row["loss"], abs=6e-5)
    assert lines[-1].startswith("no mixture within the bounds is better by more than ")
    run("mixture", "domain_mixture", "--in-range", "--to", "text", "-o", "out.csv")
    assert Path("out.csv").read_text().startswith("domain_mixture\ngroup")


def test_a_long_table_is_cut_for_people(run, monkeypatch):
    monkeypatch.setattr(jaxlaws.cli.search, "SHOWN_ROWS", 3)
    status, out, _ = run("mixture", "domain_mixture", "--in-range", "--to", "text")
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 1 + 2 + 3 + 1 + 2)
    assert lines[6] == "... and 1 more rows; -o FILE keeps them all"


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
    assert err.startswith("jaxlaws: warning: 4 of 4 answers outside the range that domain_mixture was fitted on: ")
    assert "proportion_domain_3 in 4, 0.3 (fitted on 0 to 0.09375)" in err
    assert "proportion_domain_2" not in err
    assert err.endswith("; --in-range searches only there\n")
    assert err.count("\n") == 1
    for more in ((), ("--prior", "0.2", "--strength", "0.1"), ("--sum", "1,5>=0.6", "--sum", "1<=1")):
        assert run("mixture", "domain_mixture", "--in-range", *more)[::2] == (0, ""), more


# Allocations.


@pytest.fixture
def allocations(run):
    """The rows that `jaxlaws allocate --json` prints."""

    def allocations(*args):
        status, out, err = run("allocate", *args, "--json")
        assert status == 0, err
        return [json.loads(line) for line in out.splitlines()]

    return allocations


def test_the_best_split_of_a_budget_is_that_of_the_formula(allocations):
    budgets = [1e20, 1e24]
    groups = jl.laws["chinchilla"].groups
    rows = allocations("chinchilla", "--budget", "1e20,1e24")
    assert [(row["group"], row["budget"]) for row in rows] == [(g, budget) for g in groups for budget in budgets]
    for row in rows:
        c = groups[row["group"]]
        flop = row["budget"] / 6
        params = (c.alpha * c.A / (c.beta * c.B)) ** (1 / (c.alpha + c.beta)) * flop ** (c.beta / (c.alpha + c.beta))
        assert row["params"] == pytest.approx(params, rel=1e-6)
        assert row["tokens"] == pytest.approx(flop / params, rel=1e-6)
        assert row["loss"] == pytest.approx(c.E + c.A / params**c.alpha + c.B * (params / flop) ** c.beta, rel=1e-12)
        assert row["cost"] == pytest.approx(row["budget"], rel=1e-9)
        assert row["gap"] < 1e-9
        assert row["converged"] is row["feasible"] is row["convex"] is True


def test_the_cheapest_allocation_of_a_loss_takes_its_cost_as_a_budget(allocations):
    (row,) = allocations("chinchilla", "--target", "2.1", "--group", "besiroglu2024")
    assert row["loss"] == pytest.approx(2.1, abs=1e-9)
    (again,) = allocations("chinchilla", "--budget", repr(row["cost"]), "--group", "besiroglu2024")
    assert again["loss"] == pytest.approx(2.1, abs=1e-9)
    assert again["params"] == pytest.approx(row["params"], rel=1e-5)


@pytest.mark.parametrize(
    ("args", "options"),
    [
        (
            ("data_constrained", "--budget", "1e21", "unique_tokens=1e10", "--max-epochs", "4", "--within", "0.1%"),
            {"budget": 1e21, "unique_tokens": 1e10, "max_epochs": 4.0, "within": 0.001},
        ),
        (("chinchilla", "--budget", "1e22", "params=1e9", "--group", "besiroglu2024"), {"budget": 1e22, "params": 1e9}),
        (
            ("chinchilla", "--budget", "1e22", "--upper", "params=1e9", "--lower", "tokens=1e9"),
            {"budget": 1e22, "upper": {"params": 1e9}, "lower": {"tokens": 1e9}},
        ),
        (("chinchilla", "budget=1e22", "upper_params=1e9"), {"budget": 1e22, "upper": {"params": 1e9}}),
        (
            ("chinchilla", "--budget", "1e22", "--cost", "inference", "--inference-tokens", "1e12"),
            {"budget": 1e22, "cost": costs.training_and_inference(1e12)},
        ),
        (
            ("chinchilla", "--budget", "1e22", "--min-tokens-per-param", "200"),
            {"budget": 1e22, "min_tokens_per_param": 200.0},
        ),
        (("chinchilla", "--target", "2.2", "min_tokens_per_param=200"), {"target": 2.2, "min_tokens_per_param": 200.0}),
        (
            ("fine_grained_moe", "--budget", "1e22", "--cost", "fine-grained", "--experts", "32"),
            {"budget": 1e22, "cost": costs.fine_grained(experts=32)},
        ),
        (
            ("precision", "--budget", "1e22", "--cost", "bits", "weight_bits=4"),
            {"budget": 1e22, "cost": costs.training_in_bits(), "weight_bits": 4.0},
        ),
        (
            ("moe", "--budget", "1e9", "--cost", "moe-total", "--integer", "num_experts", *MOE),
            {
                **{"budget": 1e9, "cost": costs.moe_total(0.5)},
                **{"integers": ("num_experts",), "powers_of_two": ("num_experts",)},
            },
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_are_those_of_allocate(asked, args, options):
    law, groups, given = asked(allocation, "allocate", "allocate", *args)
    assert law is jl.laws[args[0]]
    assert groups == ([args[-1]] if args[-2] == "--group" else list(law.groups))
    given = {
        name: value
        for name, value in given.items()
        if value is not None and np.size(value) and (not isinstance(value, dict) or value)
    }
    assert given.keys() == {"cost", *options}
    for name, value in {"cost": costs.training, **options}.items():
        if name == "cost" and value is not costs.training:
            assert given[name].func is value.func
            assert given[name].keywords.keys() == value.keywords.keys()
            value, given[name] = value.keywords, given[name].keywords
        if isinstance(value, dict):
            assert given[name].keys() == value.keys()
            for key, number in value.items():
                assert np.unique(given[name][key]).tolist() == [number]
        elif isinstance(value, float):
            assert np.unique(given[name]).tolist() == [value]
        else:
            assert given[name] == value


def test_one_allocation_for_people(run, allocations):
    args = ("data_constrained", "--budget", "1e22", "unique_tokens=1e10", "--max-epochs", "4", "--within", "0.1%")
    (row,) = allocations(*args)
    assert row["tokens"] == pytest.approx(4e10)
    assert row["params"] == pytest.approx(1e22 / 6 / 4e10)
    lines = run("allocate", *args, "--to", "text")[1].splitlines()
    heading = "data_constrained, group all_data, unique_tokens 1e+10, budget 1e+22, max_epochs 4"
    assert (lines[0], lines[1].split()[:4]) == (heading, ["input", "best", "lowest", "highest"])
    for name, line in zip(("params", "tokens"), lines[3:5], strict=True):
        values = [row[name], row[f"lowest_{name}"], row[f"highest_{name}"]]
        assert line.split()[0] == name
        assert [float(word) for word in line.split()[1:4]] == [pytest.approx(x, rel=1e-3) for x in values]
    assert lines[4].split()[4:] == ["epochs", "tokens"]
    assert lines[6].startswith(f"loss {row['loss']:.4f}, cost 1e+22, multiplier {row['multiplier']:.3g}; no allocation")


def test_tokens_that_follow_from_the_parameters_for_people(run):
    args = ("chinchilla", "--group", "besiroglu2024", "--budget", "1e22", "--min-tokens-per-param")
    lines = run("allocate", *args, "0,100,1000", "--to", "text")[1].splitlines()
    rows = [re.split(r"  +", line.strip()) for line in lines[1:6] if "──" not in line]
    assert rows[0][:4] == ["min_tokens_per_param", "params", "tokens", "tokens at"]
    assert [row[3] for row in rows[2:]] == ["per param", "per param"]
    assert [float(row[2]) / float(row[1]) for row in rows[2:]] == [pytest.approx(m, rel=1e-3) for m in (100, 1000)]
    one = run("allocate", *args, "100", "--to", "text")[1].splitlines()
    assert re.split(r"  +", one[4].strip()) == ["tokens", rows[2][2], "per param", "tokens"]


def test_allocations_stay_within_the_range(run, allocations):
    (row,) = allocations("chinchilla", "--budget", "1e22", "--group", "besiroglu2024", "--in-range")
    for v in jl.variables(jl.laws["chinchilla"].inputs):
        assert v.range[0] <= row[v.name] <= v.range[1] * (1 + 1e-12)
    status, _, err = run("allocate", "chinchilla", "--budget", "1e24", "--group", "besiroglu2024")
    assert status == 0
    assert re.search(r"params in 1, 9.\d+e\+10 \(fitted on 5.73e\+07 to 1.62e\+10\)", err)


def test_the_curve_of_budgets_for_people(run, allocations):
    args = ("chinchilla", "--budget", "1e20,1e24")
    lines = run("allocate", *args, "--to", "text")[1].splitlines()
    rows = allocations(*args)
    names = ["group", "budget", "params", "tokens", "loss", "cost", "multiplier"]
    assert (lines[0], lines[1].split()) == ("chinchilla", names)
    for row, line in zip(rows, lines[3 : 3 + len(rows)], strict=True):
        group, *values = line.split()
        assert group == row["group"]
        assert [float(word) for word in values] == [pytest.approx(row[name], rel=5e-3) for name in names[1:]]
    assert lines[-1].startswith("no allocation within the bounds is better by more than ")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("chinchilla",), "give --budget or --target"),
        (("chinchilla", "--budget", "1e20", "--target", "2"), "not allowed with"),
        (("chinchilla", "--budget", "1e20", "target=2"), "give --budget or --target"),
        (
            ("chinchilla", "--budget", "1e9", "--lower", "tokens=1e9,params=1e9"),
            "is within the budget 1e+09; the cost at the lower bounds is 6e+18",
        ),
        (("chinchilla", "--budget", "1e20", "--cost", "x"), "'x' is not one of distillation, "),
        (("chinchilla", "--budget", "1e20", "--cost", "inference"), "training-and-inference needs --inference-tokens"),
        (
            ("chinchilla", "--budget", "1e20", "--inference-tokens", "1"),
            "--inference-tokens is not for --cost training, but for distillation, ",
        ),
        (("chinchilla", "--budget", "1e20", "--lower", "3"), "--lower: name the inputs, as in --lower params=1e9"),
        (("chinchilla", "--budget", "1e20", "--lower", "x=3"), "'x', which is not searched for"),
        (("chinchilla", "--budget", "1e20", "--max-epochs", "4"), "use --upper"),
        (("chinchilla", "--budget", "1e20", "params=1", "tokens=1"), "all inputs are given"),
        (("chinchilla", "--budget", "1e20", "token=1"), "did you mean 'tokens'?"),
        (("chinchilla", "--budget", "1e20", "tokens=0"), "tokens"),
        (("moe", "--budget", "1e9"), "an input called tokens, which moe does not have; give another --cost"),
        (
            ("moe", "--budget", "1e9", "--min-tokens-per-param", "20"),
            "called tokens and one in parameters; use --lower",
        ),
        (("chinchilla", "--budget", "1e20", "--min-tokens-per-param", "-1"), "must be finite, and not below 0"),
        (("fine_grained_moe", "--budget", "1e20"), "a token meets; give --cost fine-grained --experts 64"),
        (("precision", "--budget", "1e20", "--cost", "distillation"), "distillation needs --teacher-params"),
        (("finetuning", "--budget", "1e20"), "finetuning"),
        (("domain_mixture", "--budget", "1e9"), "not for proportions; for these, see jaxlaws mixture --help"),
    ],
)
def test_bad_arguments_of_allocate(run, args, words):
    status, out, err = run("allocate", *args)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert words in err


# What has no answer: exit status 1.


def test_bounds_that_contradict_each_other(run):
    contradiction = ("--sum", "1,2>=0.6", "--sum", "3,4,5>=0.6")
    status, out, err = run("mixture", "domain_mixture", "--group", "70M", *contradiction, "--to", "text")
    assert (status, out) == (1, "")
    assert err == "jaxlaws: no mixture is within the bounds; loosen --sum '1,2>=0.6' or '3,4,5>=0.6'\n"
    status, out, err = run("mixture", "domain_mixture", *contradiction, "--to", "text")
    assert status == 1
    assert [line.split() for line in out.splitlines()[3:]] == [[group, "none"] for group in MIXTURE.groups]
    assert err.startswith("jaxlaws: 4 of 4 without an answer: group 160M: no mixture is within the bounds; loosen ")
    assert err.count("\n") == 1
    status, out, err = run("mixture", "domain_mixture", *contradiction, "-o", "out.jsonl")
    assert (status, out) == (1, "")
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["feasible"] for row in rows] == [row["converged"] for row in rows] == [False] * 4


def test_ranges_of_several_allocations_for_people(run, allocations):
    args = ("--group", "besiroglu2024", "--budget", "1e20,1e21", "--within", "1%")
    lines = run("allocate", "chinchilla", *args, "--to", "text")[1].splitlines()
    header = re.split(r"  +", lines[1])
    for row, line in zip(allocations("chinchilla", *args), lines[3:5], strict=True):
        shown = dict(zip(header, map(float, line.split()), strict=True))
        for name in ("params", "tokens"):
            for end in ("lowest", "highest"):
                assert shown[f"{end} {name}"] == pytest.approx(row[f"{end}_{name}"], rel=1e-3)


def test_those_with_an_answer_are_shown_beside_those_without(run):
    status, out, err = run(
        *("mixture", "domain_mixture", "--group", "70M", "upper_1=0.2,0.1", "--sum", "1>=0.15", "--to", "text")
    )
    assert status == 1
    assert (
        "jaxlaws: 1 of 2 without an answer: upper_1 0.1: no mixture is within the bounds; loosen --sum '1>=0.15'\n"
        in err
    )
    assert out.startswith("domain_mixture, group 70M\n")
    first, second = out.splitlines()[3:5]
    assert len(first.split()) == 1 + K + 1
    assert second.split() == ["0.1", "none"]


def test_a_search_that_does_not_end_says_so(run, monkeypatch):
    unfinished = changed(converged=np.array([True, False, True, True]), steps=np.full(4, 99))
    monkeypatch.setattr(module, "optimize_mixture", unfinished)
    status, out, err = run("mixture", "domain_mixture", "--in-range", "--to", "text")
    assert status == 1
    assert err == "jaxlaws: 1 of 4 without an answer: group 305M: the search did not end at the best in 99 steps\n"
    assert [line.split()[7:] for line in out.splitlines()[3:7]] == [[], ["not", "the", "best"], [], []]


# Bad input: one line, exit status 2.


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("sft",), "sft has no proportions of domains to search for; "),
        (("domain_mixtures",), "did you mean 'domain_mixture'"),
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
        (("domain_mixture", "--lower", "-1,0,0,0,0"), "--lower must not be negative"),
        (("domain_mixture", "--budget", "-1e10", "--available", "1e9"), "budget must be positive"),
        (("domain_mixture", "--within", "-1%"), "'-1%' is not a positive number"),
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


@pytest.mark.parametrize(
    ("command", "module", "name"), [("mixture", module, "optimize_mixture"), ("allocate", allocation, "allocate")]
)
def test_help_shows_examples_that_run(run, asked, command, module, name):
    status, text, _ = run(command, "--help")
    assert status == 0
    law = jl.laws["domain_mixture"]
    best = {"410M": law.groups["410M"]}
    jl.Draws(law=law, coefs={"410M": jl.stack([best["410M"]] * 2)}, best=best, converged={}).save("draws.parquet")
    examples = re.findall(rf"^  jaxlaws ({command} .*)$", text, re.MULTILINE)
    assert len(examples) >= 3
    for example in examples:
        assert asked(module, name, *shlex.split(example.split(" | ")[0]))


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
