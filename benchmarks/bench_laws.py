"""Rows per second of every law, against NumPy and the published Python loop.

    pytest benchmarks --benchmark-group-by=param:name,param:verb,param:dtype,param:rows

Each peer is a parameter of the same benchmark; results are checked equal before they are timed, and compilation is over
by then. Inputs are NumPy arrays, as a user has them; outputs are waited for.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import numpy as np
import peers
import pytest

import jaxlaws as jl
from jaxlaws.columns import from_columns
from jaxlaws.law import variables

SOURCES = Path(__file__).parent.parent.parent / "shared" / "seeds"


def configurations(law, rows, dtype):
    """Random configurations within the fitted range, as a record of NumPy arrays."""
    random = np.random.default_rng(0)
    columns = []
    for v in variables(law.inputs):
        names = v.column_names(law.sizes)
        if v.total is not None:
            columns += list(random.dirichlet(np.ones(len(names)), rows).T)
        else:
            low, high = np.log(np.asarray(v.range, float))
            columns.append(np.exp(random.uniform(low, high, rows)))
    return from_columns(law, [column.astype(dtype) for column in columns])


def jaxlaws(law, group, x, verb):
    run = {"value": jl.predict, "gradient": jl.gradient}[verb]
    return lambda: jax.block_until_ready(run(law, group, x))


def numpy(law, group, x, verb):
    fn = getattr(peers, law.name + ("" if verb == "value" else "_gradient"), None)
    if fn is None:
        pytest.skip("nobody wrote this law in NumPy by hand")
    dtype = next(iter(jax.tree.leaves(x))).dtype
    coefs = {k: np.asarray(v, dtype)[()] for k, v in jl.as_dict(law.groups[group]).items()}
    return lambda: fn(coefs, *jax.tree.leaves(x))


def python_loop(law, group, x, verb):
    path = SOURCES / f"{law.name}.py"
    if not path.exists():
        pytest.skip("needs the published code of the laws")
    if verb == "gradient" or jax.tree.leaves(x)[0].dtype != np.float64:
        pytest.skip("the published code computes values in float64 only")
    spec = importlib.util.spec_from_file_location(f"source_{law.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    columns = np.column_stack(jax.tree.leaves(x)).tolist()
    rows = [dict(zip(law.input_columns, row, strict=True)) for row in columns]
    return lambda: module.law(rows, group)


def as_array(result):
    """Any peer's result as one array."""
    if isinstance(result, list):
        return np.squeeze(np.array([list(row.values()) for row in result]))
    return np.squeeze(np.stack([np.asarray(leaf) for leaf in jax.tree.leaves(result)], axis=-1))


@pytest.mark.parametrize("rows", [1, 1_000, 1_000_000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("verb", ["value", "gradient"])
@pytest.mark.parametrize("peer", [jaxlaws, numpy, python_loop], ids=lambda peer: peer.__name__)
@pytest.mark.parametrize("name", list(jl.laws))
def test_rows_per_second(benchmark, name, verb, dtype, rows, peer):
    law = jl.laws[name]
    group = list(law.groups)[-1]
    x = configurations(law, rows, dtype)
    run = peer(law, group, x, verb)
    expected = as_array(jaxlaws(law, group, x, verb)())
    np.testing.assert_allclose(as_array(run()), expected, rtol=1e-11 if dtype == "float64" else 3e-5, atol=1e-7)
    slow = rows == 1_000_000 and peer is python_loop
    benchmark.pedantic(run, rounds=2 if slow else 20, iterations=1 if rows > 1000 else 100, warmup_rounds=1)
    if benchmark.stats:
        benchmark.extra_info["million rows per second"] = rows / benchmark.stats["min"] / 1e6


@pytest.mark.parametrize("rows", [1_000_000])
@pytest.mark.parametrize("peer", ["jaxlaws", "python_loop"])
@pytest.mark.parametrize("name", list(jl.laws))
def test_list_of_dicts(benchmark, name, rows, peer):
    law = jl.laws[name]
    group = list(law.groups)[-1]
    x = configurations(law, rows, "float64")
    dicts = [dict(zip(law.input_columns, row, strict=True)) for row in np.column_stack(jax.tree.leaves(x)).tolist()]
    loop = python_loop(law, group, jax.tree.map(lambda leaf: leaf[:1000], x), "value")
    ours = jl.sldbench.law(name)
    np.testing.assert_allclose(as_array(ours(dicts[:1000], group)), as_array(loop()), rtol=1e-12)
    run = (lambda: ours(dicts, group)) if peer == "jaxlaws" else python_loop(law, group, x, "value")
    benchmark.pedantic(run, rounds=3, iterations=1, warmup_rounds=0)
