"""Searches with laws whose inputs are called what results are called: each has a column of its own."""

import json
from pathlib import Path

import pytest

import jaxlaws as jl
from jaxlaws.cli.search import result_names

LAW = """\
import jax.numpy as jnp
import numpy as np
from jaxlaws import Law, Scalar, Source, Vector, record, var

@record
class Inputs:
{inputs}

@record
class Coefs:
    A: Vector = var("weights", shape="domain")

@record
class Outputs:
    {output}: Scalar = var("loss")

def loss(c, x):
    return {loss}

def cost(x):
    return x.loss * x.steps

LAW = Law(title="t", fn=loss, inputs=Inputs, coefs=Coefs, outputs=Outputs, formula="0", curvature="convex",
          source=Source(reference="r"), groups={{"a": Coefs(A=np.array([1.0, 2.0]))}})
"""
SCALAR = '    {}: Scalar = var("any number", range=(1e-9, 1e9))'
SHARES = '    shares: Vector = var("shares", shape="domain", columns="share_{}", total=1, range=(0, 1))'
OF_MIXTURES = [v.name for v in jl.variables(jl.Mixture) if not v.shape]
OF_ALLOCATIONS = [v.name for v in jl.variables(jl.Allocation) if v.name != "inputs"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def law(inputs, loss, output="loss"):
    """The name of a file with a law that has inputs of these names."""
    lines = [SHARES if name == "shares" else SCALAR.format(name) for name in inputs]
    Path("own.py").write_text(LAW.format(inputs="\n".join(lines), loss=loss, output=output))
    return "own.py"


def rows_of(run, command, *args):
    status, out, err = run(command, *args, "--json")
    assert status == 0, err
    return [json.loads(line) for line in out.splitlines()]


def table(given):
    """The name of a file with one row."""
    Path("problems.csv").write_text(",".join(given) + "\n" + ",".join(map(str, given.values())) + "\n")
    return "problems.csv"


def test_inputs_called_like_results_of_mixtures(run):
    """On the command line and in a table; for a law with an output that is called like a result, too."""
    given = {name: i + 1.0 for i, name in enumerate(OF_MIXTURES)}
    squares = "jnp.sum(c.A * (x.shares - 0.3) ** 2) + x.loss"
    own = law([*given, "shares"], squares, output="gap")
    for problems in ([f"{name}={value}" for name, value in given.items()], [table(given)]):
        (row,) = rows_of(run, "mixture", own, *problems)
        assert {name: row[name] for name in given} == given
        assert (row["search_converged"], row["search_feasible"]) == (True, True)
        assert isinstance(row["search_steps"], int)
        assert 0 <= row["search_gap"] < 1e-9
        assert row["predicted_gap"] == row["search_loss"] == pytest.approx(1 + 8 / 75)
        assert [row["share_1"], row["share_2"]] == pytest.approx([17 / 30, 13 / 30])


def test_inputs_called_like_results_of_allocations(run):
    """Those that are given, and those that are searched for."""
    given = {name: i + 1.0 for i, name in enumerate(OF_ALLOCATIONS) if name not in ("loss", "steps")}
    own = law(OF_ALLOCATIONS, "c.A[0] / jnp.sqrt(x.loss) + c.A[1] / jnp.sqrt(x.steps)")
    limit = ("--cost", f"{own}:cost", "--budget", "1e4")
    for problems in ([f"{name}={value}" for name, value in given.items()], [table(given)]):
        (row,) = rows_of(run, "allocate", own, *problems, *limit)
        assert {name: row[name] for name in given} == given
        assert [row["loss"], row["steps"]] == pytest.approx([50, 200])
        assert [row["search_loss"], row["search_cost"]] == pytest.approx([8**0.5 / 10, 1e4])
        assert row["search_converged"] is True
        assert isinstance(row["search_steps"], int)
        assert row["at_lower_loss"] is False
    status, out, err = run("allocate", own, *problems, *limit, "--to", "text")
    assert (status, err) == (0, "")
    assert "search_loss 0.2828, search_cost 1e+04" in out


def test_what_a_law_with_steps_is_told_can_be_read_by_predict(run):
    ((coefs, *_),) = jl.laws["bimix"].golden
    saved = {"law": "bimix", "groups": {"all_data": {"coefs": jl.as_dict(coefs)}}}
    Path("coefs.json").write_text(json.dumps(saved))
    rows = rows_of(run, "mixture", "bimix", "--coefs", "coefs.json", "steps=1e4,1e5")
    assert [row["steps"] for row in rows] == [1e4, 1e5]
    assert all(1 < row["search_steps"] < 100 for row in rows)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = rows_of(run, "predict", "bimix", "rows.jsonl", "--coefs", "coefs.json")
    for row in again:
        assert row["predicted_loss_domain_1"] == pytest.approx(row["loss_domain_1"], rel=1e-12)


@pytest.mark.parametrize("name", [*jl.laws])
def test_columns_of_results_are_none_of_inputs(name):
    law = jl.laws[name]
    inputs = {name for v in jl.variables(law.inputs) for name in (v.name, *v.aliases)}
    for results in (OF_MIXTURES, OF_ALLOCATIONS, [f"inputs_{v.name}" for v in jl.variables(law.inputs)]):
        named = result_names(law, results)
        assert [*named] == results
        assert len({*named.values()}) == len(results)
        assert inputs.isdisjoint(named.values()) or results[0].startswith("inputs_")


def test_a_vector_that_is_given_has_one_number_per_problem_and_one_column(run):
    inputs = "\n".join([SCALAR.format("size"), SCALAR.format("time"), SHARES])
    text = LAW.format(inputs=inputs, output="loss", loss="jnp.sum(c.A * x.shares) / (x.size * x.time)")
    Path("own.py").write_text(
        text.replace("x.loss * x.steps", "x.size * x.time**2")
        .replace("range=(0, 1)", "range=(0.4, 1)")
        .replace("total=1, ", "")
    )
    rows = rows_of(run, "allocate", "own.py", "shares=0.5,0.25", "--cost", "own.py:cost", "--budget", "1e4", "time=2")
    assert [row["loss"] for row in rows] == pytest.approx([1.5 / 5e3, 0.75 / 5e3])
    assert [row["extrapolated_shares"] for row in rows] == [False, True]
