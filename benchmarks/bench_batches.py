"""What the kind of a batch costs: derivatives, grids, mixed groups, one row, very many rows, lists of dicts.

    pytest benchmarks/bench_batches.py --benchmark-group-by=func,param:name,param:dtype

Each benchmark has two parameters to compare, which compute the same (or, for derivatives, one more than the other).
The number of rows is the largest of `--sizes`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest
from bench_laws import kept
from peers import with_published

import jaxlaws as jl
from jaxlaws.law import variables

LAWS = peers.LAWS
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def scalars_only(name):
    return all(not v.shape for v in variables(jl.laws[name].inputs))


@pytest.fixture
def rows(request):
    return max(request.config.getoption("--sizes"))


@pytest.fixture
def x64(request):
    """JAX arrays of the dtype that is benchmarked."""
    with jax.enable_x64(request.getfixturevalue("dtype") == "float64"):
        yield


def on_device(values):
    return jax.block_until_ready(jax.tree.map(jnp.asarray, values))


def time(clock, law, group, inputs, rows, expected=None, verb=jl.predict):
    """Time a verb; `expected` computes the value in another way."""

    def check(result):
        value = result[0] if verb is jl.value_and_gradient else result
        dtype = value.dtype.name
        if expected is not None:
            np.testing.assert_allclose(np.ravel(value), np.ravel(expected()), rtol=TOLERANCE[dtype])

    clock(lambda: jax.block_until_ready(verb(law, group, inputs)), rows, check)


@pytest.mark.parametrize("verb", ["predict", "value_and_gradient"])
@DTYPES
@pytest.mark.parametrize("name", LAWS)
def test_value_and_gradient(clock, name, dtype, verb, rows, x64):
    law = jl.laws[name]
    group = list(law.groups)[-1]
    inputs = on_device(peers.configurations(law, rows, dtype))

    def expected():
        value = law(group, inputs)
        return value.mean(-1) if law.output_shape and verb == "value_and_gradient" else value

    time(clock, law, group, inputs, rows, expected, getattr(jl, verb))


@pytest.mark.parametrize("points", ["flat", "axes"])
@DTYPES
@pytest.mark.parametrize(
    "name", [name for name in LAWS if scalars_only(name) and len(variables(jl.laws[name].inputs)) > 1]
)
def test_grid(clock, name, dtype, points, rows, x64):
    """The first input on one axis, the others on the other; or all of the points as columns."""
    law = jl.laws[name]
    n = 1 << (rows.bit_length() // 2)
    m = max(1, rows // n)
    first, *others = jax.tree.leaves(peers.configurations(law, rows, dtype))
    axes = [first[:n, None], *(x[None, :m] for x in others)]
    flat = [np.ascontiguousarray(x).ravel() for x in np.broadcast_arrays(*axes)]
    record = lambda columns: on_device(law.inputs(**dict(zip(law.input_columns, columns, strict=True))))  # noqa: E731
    inputs, other = (record(flat), record(axes)) if points == "flat" else (record(axes), record(flat))
    group = list(law.groups)[-1]
    time(clock, law, group, inputs, n * m, lambda: law(group, other))


@pytest.mark.parametrize("groups", ["one", "mixed"])
@DTYPES
@pytest.mark.parametrize("name", [name for name in LAWS if len(jl.laws[name].groups) > 1])
def test_groups(clock, name, dtype, groups, rows, x64):
    """All rows of one group by its name, or rows of all groups in random order by their ids."""
    law = jl.laws[name]
    inputs = on_device(peers.configurations(law, rows, dtype))
    names = list(law.groups)
    if groups == "one":
        time(clock, law, names[0], inputs, rows)
        return
    ids = np.random.default_rng(1).integers(0, len(names), rows, dtype=np.int32)

    def expected():
        result = None
        for id, group in enumerate(names):
            value = np.asarray(law(group, inputs))
            result = np.empty_like(value) if result is None else result
            result[ids == id] = value[ids == id]
        return result

    time(clock, law, on_device(ids), inputs, rows, expected)


@pytest.mark.parametrize("kind", ["jax", "numpy", "python"])
@pytest.mark.parametrize("name", LAWS)
def test_one_row(clock, name, kind):
    """One configuration, in arrays without batch axes or as plain numbers."""
    law = jl.laws[name]
    group = list(law.groups)[-1]
    inputs = jax.tree.map(lambda x: np.asarray(x[0]), peers.configurations(law, 1, "float32"))
    convert = {"jax": jnp.asarray, "numpy": np.asarray, "python": np.ndarray.tolist}[kind]
    inputs = jax.tree.map(convert, inputs)
    time(clock, law, group, inputs, 1)


@pytest.mark.parametrize("times", [1, 64])
@pytest.mark.parametrize("name", LAWS)
def test_long_columns(clock, name, times, rows):
    """Rows per second must not fall when there are 64 times as many; fresh memory for the result would cost more."""
    law = jl.laws[name]
    inputs = on_device(peers.configurations(law, rows * times, "float32"))
    clock(kept(law, list(law.groups)[-1], inputs), rows * times)


@pytest.mark.parametrize("peer", ["jaxlaws", "published"])
@pytest.mark.parametrize("name", LAWS)
def test_list_of_dicts(clock, name, peer, rows):
    """The interface of SLDBench, against the code that was published."""
    law = jl.laws[name]
    rows = min(rows, 2**17)
    case = peers.Case(law, "value", peers.configurations(law, rows, "float64"))
    path = with_published.SOURCES / f"{name}.py"
    if not path.exists():
        pytest.skip("needs the published code of the laws")
    run = {"jaxlaws": jl.sldbench.law(name), "published": with_published.load(path)}
    dicts = with_published.as_dicts(case)

    def check(result):
        other = run["published" if peer == "jaxlaws" else "jaxlaws"](dicts[:100], case.group)
        found = [list(row.values()) for row in result[:100]]
        np.testing.assert_allclose(found, [list(row.values()) for row in other], rtol=1e-12)

    clock(lambda: run[peer](dicts, case.group), rows, check)
