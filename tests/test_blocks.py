"""Large batches are computed in blocks, and give what the whole would; results may go to an array that is kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlaws as jl
from jaxlaws import evaluation

PARALLEL = jl.laws["parallel"]
MIXTURE = jl.laws["domain_mixture"]
SFT = jl.laws["sft"]
ROWS = 1000


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 64 rows or so; returns the lengths of all that were computed."""
    lengths = []
    outermost = evaluation._outermost

    def recorded(backend):
        def run(verb, law, coefs, ids, inputs, weights):
            lengths.append(max(leaf.shape[0] for leaf in jax.tree.leaves((ids, inputs)) if leaf.ndim))
            return outermost(backend)(verb, law, coefs, ids, inputs, weights)

        return run

    monkeypatch.setattr(evaluation, "_outermost", recorded)
    monkeypatch.setattr(evaluation, "WHOLE_BYTES", 1 << 10)
    monkeypatch.setattr(evaluation, "BLOCK_BYTES", 1 << 10)
    monkeypatch.setattr(evaluation, "MIN_BLOCK", 4)
    return lengths


def columns(count=ROWS, dtype=np.float32, offset=0):
    """Sizes and streams, as views that begin `offset` elements after the start of their memory."""
    random = np.random.default_rng(0)
    n = np.exp(random.uniform(20, 22, count + offset)).astype(dtype)[offset:]
    return {"num_params": n, "parallel_size": random.uniform(1, 8, count + offset).astype(dtype)[offset:]}


def whole(fn):
    """The result without blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "WHOLE_BYTES", 1 << 40)
        return fn()


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert type(a) is type(b)
        assert a.dtype == b.dtype
        # The compiler may order sums otherwise for another length.
        eps = 4 * np.finfo(b.dtype).eps
        np.testing.assert_allclose(a, b, rtol=eps, atol=eps * np.max(np.abs(b)))


CASES = {
    "columns": lambda: PARALLEL("pile", **columns()),
    "float64": lambda: PARALLEL("pile", **columns(dtype=np.float64)),
    "misaligned": lambda: PARALLEL("pile", **columns(offset=3)),
    "every second": lambda: PARALLEL("pile", **{k: v[::2] for k, v in columns(2 * ROWS).items()}),
    "backwards": lambda: PARALLEL("pile", **{k: v[::-1] for k, v in columns().items()}),
    "on the device": lambda: PARALLEL("pile", **jax.tree.map(jnp.asarray, columns())),
    "one input": lambda: PARALLEL("pile", num_params=columns()["num_params"], parallel_size=2),
    "value and gradient": lambda: jl.value_and_gradient(PARALLEL, "pile", **columns()),
    "groups": lambda: PARALLEL(np.arange(ROWS) % 2, **columns()),
    "groups and a column": lambda: PARALLEL(np.arange(ROWS)[:, None] % 2, num_params=1e9, parallel_size=[1, 2, 4]),
    "coefficients": lambda: PARALLEL(
        jax.tree.map(lambda c: c * np.linspace(1, 2, ROWS), PARALLEL.groups["pile"]), **columns()
    ),
    "grid": lambda: PARALLEL("pile", num_params=columns()["num_params"][:, None], parallel_size=[1, 2, 4]),
    "flat grid": lambda: PARALLEL("pile", num_params=columns()["num_params"], parallel_size=np.ones((2, 1))),
    "vectors": lambda: MIXTURE("410M", proportions=np.random.default_rng(0).dirichlet(np.ones(5), ROWS)),
    "weights": lambda: jl.gradient(MIXTURE, "410M", proportions=np.full((ROWS, 5), 0.2), weights=np.arange(5.0)),
    "weights of rows": lambda: jl.gradient(
        MIXTURE, "410M", proportions=np.full((ROWS, 5), 0.2), weights=np.random.default_rng(0).random((ROWS, 5))
    ),
    "jacobian": lambda: jl.jacobian(MIXTURE, "410M", proportions=np.full((ROWS, 5), 0.2)),
}


@pytest.mark.parametrize("case", CASES)
def test_blocks_give_what_the_whole_gives(case, small_blocks):
    expected = whole(CASES[case])
    small_blocks.clear()
    found = CASES[case]()
    assert_same(found, expected)
    assert len(set(small_blocks)) == 1, "all blocks have one length, and share a compiled function"
    if case != "flat grid":
        assert len(small_blocks) > 3


def test_bad_rows_stay_where_they_are(small_blocks):
    x = columns()
    x["num_params"][[0, 500, 999]] = np.nan
    assert np.flatnonzero(np.isnan(PARALLEL("pile", **x))).tolist() == [0, 500, 999]


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_out_is_filled_and_returned(blocks, dtype, request):
    if blocks:
        request.getfixturevalue("small_blocks")
    x = columns(dtype=dtype)
    out = np.zeros(ROWS, dtype)
    assert PARALLEL("pile", **x, out=out) is out
    np.testing.assert_allclose(out, whole(lambda: PARALLEL("pile", **x)), rtol=4 * np.finfo(dtype).eps)
    p = np.random.default_rng(0).dirichlet(np.ones(5), ROWS).astype(dtype)
    out = np.zeros((ROWS, 5), dtype)
    assert jl.predict(MIXTURE, "410M", proportions=p, out=out) is out
    np.testing.assert_allclose(out, whole(lambda: MIXTURE("410M", proportions=p)), rtol=4 * np.finfo(dtype).eps)


def test_out_that_does_not_fit_is_told():
    x = columns(8)
    read_only = np.zeros(8, np.float32)
    read_only.flags.writeable = False
    for out in (np.zeros(7, np.float32), np.zeros(8), read_only):
        with pytest.raises(ValueError, match=r"parallel: out must be a writable float32 array of shape \(8,\), not a"):
            PARALLEL("pile", **x, out=out)
    with pytest.raises(TypeError, match="out must be a NumPy array, not list"):
        PARALLEL("pile", **x, out=[0.0] * 8)
    with pytest.raises(TypeError, match="inside a transformation"):
        jax.jit(lambda n: PARALLEL("pile", num_params=n, parallel_size=1, out=np.zeros(8, np.float32)))(x["num_params"])


def test_a_law_of_constants_inside_transformations_is_computed_outside_of_them():
    loss = float(PARALLEL("pile", num_params=1e9, parallel_size=2))
    fixed = lambda: PARALLEL("pile", num_params=1e9, parallel_size=2)  # noqa: E731
    assert float(jax.jit(lambda x: x + fixed())(0.0)) == pytest.approx(loss)
    assert float(jax.grad(lambda x: x * fixed())(1.0)) == pytest.approx(loss)
    np.testing.assert_allclose(jax.vmap(lambda x: x + fixed())(np.zeros(2)), loss, rtol=1e-6)
    total, _ = jax.lax.scan(lambda carry, x: (carry + x * fixed(), None), 0.0, np.ones(3))
    assert float(total) == pytest.approx(3 * loss)
    assert float(jax.jit(lambda: fixed())()) == pytest.approx(loss)


def test_transformed_laws_do_not_trace_again():
    traces = []

    def loss(n):
        traces.append(1)
        return SFT(next(iter(SFT.groups)), sft_data_size=n)

    slope = jax.jit(jax.grad(loss))
    for n in (1e3, 2e3, 3e3):
        slope(n)
    assert len(traces) == 1
