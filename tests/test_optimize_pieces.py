"""Batches of problems in pieces, on all cores, each filled up to one of a few sizes."""

import functools
import os
import threading

import jax
import numpy as np
import pytest

import jaxlaws as jl
from jaxlaws.law import record, var
from jaxlaws.optimize import pieces
from jaxlaws.optimize.batches import Problems

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu" or jax.device_count() > 1, reason="other devices take a batch whole"
)

SIZE = 8

pytestmark = [pytest.mark.usefixtures("optimised"), pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")]


@record
class Numbers:
    """Inputs, coefficients, and what is known, of problems that are no more than numbers."""

    number: float = var("a number")


def problems(shape, dtype=np.float64, **values):
    """Problems with a matrix, a number of each, what all share, an input, and something found."""
    values = {name: np.asarray(value, dtype) for name, value in values.items()}
    cores = {"matrix": 1, "column": 0, "own": 1}
    nothing = Numbers(number=np.zeros((), dtype))
    found = (Numbers(number=np.ones((*shape, 1), dtype)[..., 0]),)
    return Problems(values, cores, (nothing, None, nothing, None), found, shape, dtype)


@pytest.fixture
def calls(monkeypatch):
    """A solver that squares; and the shapes it was called for. Two of its calls, but for the first, must meet."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    met = threading.Barrier(2)
    shapes = []

    @jax.jit
    def square(data, found):
        matrix, column = data["matrix"], data["column"]
        return {"all": (matrix + column) ** 2 + data["own"], "column": column**2 * found.number}

    def solve(*arrays):
        shapes.append(jax.tree.leaves(arrays)[0].shape)
        assert {leaf.shape[-1] for leaf in jax.tree.leaves(arrays)} == {shapes[-1][-1]}
        if len(shapes) > 1:
            met.wait(timeout=60)
        return square(*arrays)

    solve.compiled = square
    solve.sizes = lambda: [shape[-1] for shape in shapes]
    return solve


@pytest.mark.parametrize("count", [3 * SIZE, 3 * SIZE - 1, 2 * SIZE + 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pieces_make_the_whole_side_by_side(calls, count, dtype):
    rng = np.random.default_rng(0)
    matrix, column, own = rng.normal(size=(count, 3)).astype(dtype), rng.normal(size=count).astype(dtype), np.ones(3)
    found = pieces.in_pieces(calls, problems((count,), dtype, matrix=matrix, column=column, own=own), SIZE)
    assert found["all"].dtype == dtype
    assert calls.sizes() == [SIZE] * 3  # the last one is filled up
    assert calls.compiled._cache_size() == 1
    np.testing.assert_allclose(found["all"], (matrix + column[:, None]) ** 2 + own, rtol=1e-6)
    np.testing.assert_allclose(found["column"], column**2, rtol=1e-6)


def test_several_axes_are_cut_as_one(calls):
    matrix, column = np.arange(24.0).reshape(6, 1, 4), np.arange(4.0)
    found = pieces.in_pieces(calls, problems((6, 4), matrix=matrix, column=column, own=np.zeros(4)), SIZE)
    assert calls.sizes() == [SIZE] * 3
    assert found["column"].shape == (6, 4)
    np.testing.assert_allclose(found["all"], (matrix + column[:, None]) ** 2)


@pytest.mark.parametrize(("count", "size"), [(1, 8), (SIZE, 8), (9, 64), (64, 64), (65, 128)])
def test_batches_smaller_than_a_piece_have_one_of_three_sizes(calls, count, size):
    x = np.arange(float(count))
    found = pieces.in_pieces(calls, problems((count,), matrix=x[:, None], column=x, own=np.zeros(1)), 128)
    assert calls.sizes() == [size]
    np.testing.assert_allclose(found["column"], x**2)


def test_no_axes_are_one_problem(calls):
    found = pieces.in_pieces(calls, problems((), matrix=np.arange(3.0), column=2.0, own=np.zeros(3)), SIZE)
    assert calls.sizes() == [SIZE]
    np.testing.assert_allclose(found["all"], (np.arange(3.0) + 2) ** 2)
    assert found["column"].shape == ()


@pytest.mark.parametrize("chosen", [[22], [3, 1, 20], [*range(0, 23, 2), 5, *range(1, 12, 2)]])
def test_those_chosen_are_solved_alone(calls, chosen):
    rng, chosen = np.random.default_rng(0), np.array(chosen)
    given = problems((4, 6), matrix=rng.normal(size=(4, 6, 3)), column=rng.normal(size=6), own=np.ones(3))
    found = pieces.in_pieces(calls, given, SIZE, chosen)
    assert calls.sizes() == [SIZE] * -(-len(chosen) // SIZE)
    column = np.broadcast_to(given.values["column"], (4, 6)).ravel()[chosen]
    np.testing.assert_allclose(found["column"], column**2)
    matrix = given.values["matrix"].reshape(24, 3)[chosen]
    np.testing.assert_allclose(found["all"], (matrix + column[:, None]) ** 2 + 1)


def test_the_result_has_no_part_of_what_fills_up(calls):
    """Nothing of the rows that fill a piece up, nor of those that were not chosen."""
    x = np.arange(24.0)
    found = pieces.in_pieces(calls, problems((24,), matrix=x[:, None], column=x, own=np.zeros(1)), SIZE, np.array([5]))
    assert found["column"].tolist() == [25]


LAW = jl.laws["domain_mixture"]


def same(found, expected):
    """Whether all that is known of problems has the same bits."""
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def at(rows, tree):
    return jax.tree.map(lambda x: np.asarray(x)[rows], tree)


def test_many_mixtures_are_those_of_their_pieces():
    size = 256  # of a piece
    count = 2 * size + 200
    rng = np.random.default_rng(0)
    targets, groups = 3 + 0.1 * rng.normal(size=(count, 5)), rng.integers(len(LAW.groups), size=count)
    search = lambda rows: jl.optimize_mixture(LAW, groups[rows], targets=targets[rows], upper=0.4)  # noqa: E731
    whole = search(slice(None))
    for start in (0, size, count - size):
        rows = slice(start, start + size)
        same(at(rows, whole), at(slice(None), search(rows)))


# Five problems, of which the second contradicts itself, and the fourth is not a number.
SEARCHES = {
    "mixtures": lambda rows, x: jl.optimize_mixture(
        LAW,
        LAW.coefs(**{name: value[rows] for name, value in x["mixtures"].items()}),
        **{name: value[rows] for name, value in x["options"].items()},
        sums=np.eye(1, 5),
        upper=0.6,
        within=0.01,
    ),
    "allocations": lambda rows, x: jl.allocate(
        jl.laws["data_constrained"],
        type(jl.laws["data_constrained"].groups["all_data"])(**{n: v[rows] for n, v in x["allocations"].items()}),
        budget=x["budget"][rows],
        tokens=1e12,
        unique_tokens=x["unique"][rows],
        max_epochs=4,
    ),
}


@functools.cache
def five():
    rng = np.random.default_rng(0)

    def near(coefs):
        """Coefficients like these of each problem; those of the fourth are not numbers."""
        found = {
            n: np.stack([v * (1 + 0.01 * rng.normal(size=np.shape(v))) for _ in range(5)]) for n, v in coefs.items()
        }
        for value in found.values():
            value[3] = np.nan
        return found

    return {
        "mixtures": near(vars(LAW.groups["410M"])),
        "allocations": near(vars(jl.laws["data_constrained"].groups["all_data"])),
        "options": {
            "weights": rng.dirichlet(np.ones(5), 5),
            "sum_lower": np.array([[0.1], [0.7], [0.2], [0.1], [0.3]]),
        },
        "budget": np.geomspace(1e24, 1e25, 5),
        "unique": np.array([1e12, 1e10, 5e11, 1e12, 2e12]),
    }


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("rows", [[0, 1, 2], [4, 3, 2], [3], [1], [2], [1, 3, 0, 4, 2], [3, 1, 4, 2, 0, 0, 3, 1]])
def test_no_problem_shows_in_another_nor_does_what_fills_up(kind, rows):
    """Whatever else is in a batch, and however many: an answer has the same bits."""
    search = lambda rows: at(slice(None), SEARCHES[kind](np.array(rows), five()))  # noqa: E731
    whole = search(range(5))
    assert whole.feasible.tolist() == [True, False, True, True, True]
    assert whole.converged.tolist() == [True, False, True, False, True]
    assert np.isnan(whole.loss).tolist() == [False, False, False, True, False]
    same(search(rows), at(np.array(rows), whole))
