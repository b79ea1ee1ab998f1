"""Rows per second of laws and their gradients, against the same in other tools; see `peers`.

    pytest benchmarks/bench_laws.py --benchmark-group-by=param:name,param:verb,param:dtype,param:rows

Each peer is a parameter of the same benchmark, and peers of one comparison run right after each other. Results are
checked equal before they are timed, compilation is over by then, and outputs are waited for. Values are computed for
batches of all `--sizes`, gradients for the largest. `python -m benchmarks.report` makes tables of it.
"""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest
from peers import with_c

import jaxlaws as jl

VERBS = {"value": jl.predict, "gradient": jl.gradient}
OURS = ("jaxlaws", "jaxlaws_out", "jaxlaws_on_numpy")
TOLERANCE = {"float32": 1e-4, "float64": 1e-11}


def pytest_generate_tests(metafunc):
    """Parameters in this order, so that the last one, the peer, changes fastest."""
    sizes = metafunc.config.getoption("--sizes")
    ids = {n: f"2^{n.bit_length() - 1}" if n > 1 and not n & (n - 1) else str(n) for n in sizes}
    metafunc.parametrize("name", peers.LAWS)
    metafunc.parametrize("dtype", list(TOLERANCE))
    if "peer" not in metafunc.fixturenames:
        metafunc.parametrize("rows", sizes, ids=ids.get)
        return
    verbs = [("value", n) for n in sizes] + [("gradient", max(sizes))]
    metafunc.parametrize("verb, rows", verbs, ids=[f"{verb}-{ids[n]}" for verb, n in verbs])
    metafunc.parametrize("peer", [*OURS, *peers.NAMES])


def prepare(peer, case):
    """The function to time: a peer; or jaxlaws on JAX arrays, the same into a kept output, or on NumPy arrays."""
    if peer not in OURS:
        return peers.prepare(peer, case)
    if peer == "jaxlaws_out" and case.verb != "value":
        pytest.skip("only predictions take out=")
    jax.clear_caches()  # the time to compile is that of this case
    verb, inputs = VERBS[case.verb], case.inputs
    if peer != "jaxlaws_on_numpy":
        inputs = jax.block_until_ready(jax.tree.map(jnp.asarray, inputs))
    if peer != "jaxlaws_out":
        return lambda: jax.block_until_ready(verb(case.law, case.group, inputs))
    return kept(case.law, case.group, inputs)


def kept(law, group, inputs):
    """A function that predicts into the memory of its last result, as the peers do that are given memory."""
    last = [law(group, inputs)]

    def run():
        last.append(jax.block_until_ready(law(group, inputs, out=last.pop())))
        return last[0]

    return run


def setting(peer, dtype):
    """JAX has float64 arrays at 64 bits only; for NumPy arrays it is left as it is."""
    on_jax = peer in ("jaxlaws", "jaxlaws_out")
    return jax.enable_x64(True) if on_jax and dtype == "float64" else contextlib.nullcontext()


def sample(result, index):
    """Some rows of any peer's result, as one matrix."""
    if isinstance(result, list) and isinstance(result[0], dict):
        result = np.array([list(row.values()) for row in result])
    leaves = result if isinstance(result, list | tuple) else jax.tree.leaves(result)
    return np.column_stack([np.asarray(leaf)[index] for leaf in leaves])


def error(case, result):
    """The largest relative error of predictions, at some rows, against the formula in NumPy's longest numbers."""
    index = np.arange(0, len(case.arrays[0]), max(1, len(case.arrays[0]) // 1000))
    functions = {"exp": np.exp, "log": np.log}
    coefs = {name: np.asarray(value, np.longdouble) for name, value in case.coefs.items()}
    fields = [v.name for v in jl.variables(case.law.inputs)]
    columns = [getattr(case.inputs, name)[index].astype(np.longdouble) for name in fields]
    rows = [dict(zip(fields, row, strict=True)) for row in zip(*columns, strict=True)]
    exact = np.array([np.ravel(eval(case.law.formula, functions | coefs | row)) for row in rows])
    return float(np.max(np.abs(sample(result, index) / exact - 1)))


def check(case):
    """A function that compares a result with jaxlaws in float64, at a sample of rows."""
    rows = len(case.arrays[0])
    index = np.append(np.arange(0, rows, max(1, rows // 2**12)), rows - 1)
    inputs = jax.tree.map(lambda x: x[index].astype(np.float64), case.inputs)
    expected = sample(VERBS[case.verb](case.law, case.group, inputs), slice(None))
    tolerance = TOLERANCE[case.dtype.name]
    typical = np.median(np.abs(expected), axis=0)  # near a zero, the error is that of the terms

    def compare(result):
        np.testing.assert_array_less(np.abs(sample(result, index) - expected), tolerance * (np.abs(expected) + typical))

    return compare


def test_rows_per_second(clock, name, verb, dtype, rows, peer):
    law = jl.laws[name]
    case = peers.Case(law, verb, peers.configurations(law, rows, dtype))
    compare = check(case)

    def checked(result):
        compare(result)
        if verb == "value":
            clock.benchmark.extra_info["error"] = error(case, result)

    with setting(peer, dtype):
        clock(prepare(peer, case), rows, checked)


def test_memory(clock, name, dtype, rows):
    """No law: the columns in are read and as many columns as a law has outputs are written."""
    law = jl.laws[name]
    case = peers.Case(law, "value", peers.configurations(law, rows, dtype))
    clock(with_c.memory(case.columns, case.outputs(case.columns)), rows)
