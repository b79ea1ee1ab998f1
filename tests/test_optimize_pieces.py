"""Large batches of problems in pieces, on all cores."""

import os
import threading

import jax
import numpy as np
import pytest

import jaxlaws as jl
from jaxlaws.arguments import setting
from jaxlaws.optimize import pieces

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu" or jax.device_count() > 1, reason="other devices take a batch whole"
)

SIZE = 8


@pytest.fixture
def calls(monkeypatch):
    """A solver that squares; and the shapes it was called for. Two of its calls, but for the first, must meet."""
    monkeypatch.setattr(pieces, "PIECE", SIZE)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    met = threading.Barrier(2)
    shapes = []

    @jax.jit
    def square(matrix, column, own):
        return {"all": (matrix + column[..., None]) ** 2 + own, "column": column**2 + 0 * matrix[..., 0]}

    def solve(shape, *arrays):
        shapes.append(shape)
        if len(shapes) > 1:
            met.wait(timeout=60)
        return square(*arrays)

    solve.compiled = square
    solve.shapes = shapes
    return solve


@pytest.mark.parametrize("count", [3 * SIZE, 3 * SIZE - 1, 2 * SIZE + 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pieces_make_the_whole_side_by_side(calls, count, dtype):
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(count, 3)).astype(dtype), rng.normal(size=count).astype(dtype), np.ones(3, dtype)
    with setting(dtype):
        found = pieces.in_pieces(calls, (count,), arrays, (1, 0, 1), dtype)
    assert found["all"].dtype == dtype
    assert calls.shapes == [(SIZE,)] * 3
    assert calls.compiled._cache_size() == 1
    matrix, column, own = arrays
    np.testing.assert_allclose(found["all"], (matrix + column[:, None]) ** 2 + own, rtol=1e-6)
    np.testing.assert_allclose(found["column"], column**2, rtol=1e-6)


def test_the_first_of_several_axes_is_cut(calls):
    matrix, column = np.arange(24.0).reshape(6, 1, 4), np.arange(4.0).reshape(4, 1)
    found = pieces.in_pieces(calls, (6, 4), (matrix, column[:, 0], np.zeros(4)), (1, 0, 1), np.float64)
    assert calls.shapes == [(2, 4)] * 3
    np.testing.assert_allclose(found["all"], (matrix + column) ** 2)


def test_small_batches_are_whole(calls):
    x = np.arange(8.0)
    pieces.in_pieces(calls, (SIZE,), (x[:, None], x, np.zeros(1)), (1, 0, 1), np.float64)
    assert calls.shapes == [(SIZE,)]


def test_many_mixtures_are_those_of_their_pieces():
    law = jl.laws["domain_mixture"]
    size, count = pieces.PIECE, 2 * pieces.PIECE + 50
    rng = np.random.default_rng(0)
    weights, groups = rng.dirichlet(np.ones(5), count), rng.integers(len(law.groups), size=count)
    search = lambda rows: jl.optimize_mixture(law, groups[rows], weights=weights[rows], upper=0.4)  # noqa: E731
    whole = search(slice(None))
    for start in (0, size, count - size):
        rows = slice(start, start + size)
        jax.tree.map(lambda a, b, rows=rows: np.testing.assert_array_equal(a[rows], b), whole, search(rows))
