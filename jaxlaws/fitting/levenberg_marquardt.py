"""Many small problems of least squares at once, each solved by the method of Levenberg and Marquardt.

    minimise  sum over rows of  weight * rho(error(f(coefficients, row), measured))  subject to  lower <= x <= upper

A problem has blocks, one per group of runs: coefficients that are shared belong to all blocks of a problem, the others
to one block each, so that the normal equations are those of small blocks and a border (Golub and Pereyra 2003 review
the idea below for problems of that form). Without shared coefficients every block is a problem of its own.

Coefficients in which the function is linear are solved for with every step in the others: that is the method of
variable projection in the form of Ruhe and Wedin (1980) and Kaufman (1975), whose steps in the other coefficients are
those of the joint problem. Starts need no values for linear coefficients then, and far fewer steps are taken.

Axes are [row, block, problem] throughout, so that whole vectors of problems go through each instruction. Outputs that
share no coefficients are blocks, too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlaws.fitting.form import Form
from jaxlaws.fitting.once import once
from jaxlaws.optimize.interior_point import symmetric_solution

__all__ = ["OBJECTIVES", "Found", "Objective", "is_robust", "refine", "search"]


class Objective(NamedTuple):
    """What is minimised, as functions of the prediction and the measurement.

    Attributes:
        error: The error of a prediction, from prediction and measurement.
        slope: Its derivative by the prediction, from the same.
        bend: Its second derivative by the prediction, over the square of the first; 0 where it is linear.
        delta: Beyond which size an error counts by its size (Huber), and below by half of its square.
    """

    error: Callable[[Any, Any], Any]
    slope: Callable[[Any, Any], Any]
    bend: float = 0.0
    delta: float = np.inf


OBJECTIVES = {
    "squared": Objective(lambda f, y: f - y, lambda f, y: jnp.ones_like(f)),
    "relative": Objective(lambda f, y: f / y - 1, lambda f, y: jnp.broadcast_to(1 / y, f.shape)),
    # As in Hoffmann et al. 2022 (arXiv:2203.15556).
    "huber_log": Objective(lambda f, y: jnp.log(jnp.where(f > 0, f / y, jnp.nan)), lambda f, y: 1 / f, -1.0, 1e-3),
}


class Found(NamedTuple):
    """Where the search ended.

    Attributes:
        x: Coefficients, shared ones first, [coefficient, block, problem]; shared ones alike in all blocks.
        value: The objective, [block, problem]; with shared coefficients, [1, problem].
        converged: Whether nothing less is near, of the same shape.
        steps: The number of steps, of the same shape.
        delta: That of Huber's function to which the search has come, of the same shape.
    """

    x: Any
    value: Any
    converged: Any
    steps: Any
    delta: Any


UNROLLED = 5  # coefficients; sums over the rows for more of them are not written out, which takes less to compile
MOST_BENT = 64  # pairs of coefficients; with more, second derivatives take too long to compile, and are left out
TOLERANCE = 1e-13  # of the objective, that another step would gain
ROUGHLY = 1e-9  # the same where the search is for the start of another one


class _At(NamedTuple):
    """The objective near a point: value, gradient and matrix of second derivatives, as well as these are known."""

    value: jax.Array
    gradient: jax.Array
    matrix: jax.Array


class _State(NamedTuple):
    x: jax.Array
    at: _At
    delta: jax.Array
    renewed: jax.Array  # whether delta has changed since the objective was computed
    damping: jax.Array
    growth: jax.Array
    trial: jax.Array
    predicted: jax.Array
    converged: jax.Array
    stuck: jax.Array
    steps: jax.Array
    turn: jax.Array


def search(
    form: Form, bounds: Any, data: Any, measured: jax.Array, weight: jax.Array, start: jax.Array, most: Any
) -> Found:
    """The nearest minimum from each start.

    Of robust objectives, the minimum of the squares of relative errors, which is where `refine` begins.

    Args:
        form: What is fitted, but for its bounds.
        bounds: Least and largest values, as `form.bounds` gives them.
        data: What `form.at` takes.
        measured: [row, block, problem or 1].
        weight: [row, block, problem or 1]; rows of weight 0 do not count.
        start: [coefficient, block, problem]; those of linear coefficients are not used.
        most: How many steps are taken at most.
    """
    objective = OBJECTIVES["relative" if is_robust(form) else form.objective]
    start = jnp.clip(jnp.where(jnp.asarray(form.linear)[:, None, None], 0, start), *bounds)
    return _search(form, bounds, data, measured, weight, start, most, np.inf, objective, projected=True)


def refine(
    form: Form,
    bounds: Any,
    data: Any,
    measured: jax.Array,
    weight: jax.Array,
    start: jax.Array,
    most: Any,
    delta: Any = np.inf,
) -> Found:
    """The nearest minimum from where `search` or another fit ended, with second derivatives; arguments as for these.

    Delta of Huber's function begins at the given one; infinity stands for the size of the errors.
    """
    return _search(
        form, bounds, data, measured, weight, start, most, delta, OBJECTIVES[form.objective], projected=False
    )


def is_robust(form: Form) -> bool:
    """Whether the objective needs a search of its own."""
    return OBJECTIVES[form.objective].delta < np.inf


def _search(
    form: Form,
    bounds: Any,
    data: Any,
    measured: Any,
    weight: Any,
    start: Any,
    most: Any,
    delta: Any,
    objective: Objective,
    projected: bool,
) -> Found:
    """The nearest minimum, either with linear coefficients solved for, or by Newton's method for all of them.

    The former is for errors that are linear in the prediction, and not robust ones.
    """
    count, shared, shape = start.shape[0], form.shared_count, start.shape[1:]
    total = _summed if shared else _each
    lower, upper = bounds
    linear = [i for i, is_linear in enumerate(form.linear) if is_linear]
    used = weight > 0
    tolerance = TOLERANCE if objective is OBJECTIVES[form.objective] else ROUGHLY
    exact = not projected and len(form.bent) <= MOST_BENT

    def predict(x: Sequence[jax.Array]) -> jax.Array:
        return form.at(x, data)

    def over_rows(values: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(used, values, 0), 0)

    def near(point: Sequence[jax.Array], which: Sequence[int], delta: jax.Array, exact: bool) -> _At:
        predicted, slopes = form.derivatives(point, which, data)
        error, slope = objective.error(predicted, measured), objective.slope(predicted, measured)
        size = jnp.abs(error)
        far = size > delta
        value = total(over_rows(weight * jnp.where(far, delta * (size - delta / 2), error**2 / 2)))
        force = weight * jnp.where(far, delta * jnp.sign(error), error)
        jacobian = [jnp.where(used, each * slope, 0) for each in slopes]
        force = jnp.where(used, force, 0)
        gradient = jnp.stack([jnp.sum(each * force, 0) for each in jacobian])
        if exact:
            curvature = jnp.where(far, 0, weight) + objective.bend * force
        else:  # that of parabolas that touch Huber's function and lie above it
            curvature = weight * jnp.where(far, delta / jnp.where(far, size, 1), 1)
        curvature = jnp.where(used, curvature, 0)
        matrix = _products(jacobian, curvature)
        if exact:
            matrix = matrix + bending(point, force * slope)
        return _At(value, gradient, matrix)

    def bending(point: Sequence[jax.Array], force: jax.Array) -> jax.Array:
        """What second derivatives of the predictions add to those of the objective."""
        nothing = jnp.zeros(shape, force.dtype)
        rows = [[nothing] * count for _ in range(count)]
        for i, j in form.bent:
            rows[i][j] = rows[j][i] = over_rows(force * form.slope(form.slope(predict, j), i)(point))
        return jnp.stack([jnp.stack(row) for row in rows])

    def settled(point: list[jax.Array], delta: jax.Array) -> list[jax.Array]:
        """The point with the best linear coefficients."""
        few = sum(i < shared for i in linear)
        at = near(point, linear, delta, exact=False)
        x = jnp.stack([point[i] for i in linear])
        low, high = (jnp.stack([bound[i] for i in linear]) for bound in bounds)
        best, gain = _step(at, jnp.zeros_like(x), x, low, high, few, total)
        chosen = dict(zip(linear, jnp.where(gain >= 0, best, x), strict=True))
        # The others stay the same arrays, so that what depends on them alone is not computed again.
        return [chosen.get(i, old) for i, old in enumerate(point)]

    def advance(state: _State) -> _State:
        point = list(state.trial)
        point = settled(point, state.delta) if linear else point
        at = near(point, range(count), state.delta, exact=exact)
        trial = jnp.stack(point)
        better = state.renewed & jnp.isfinite(at.value) | (at.value <= state.at.value)  # not for NaN
        done = state.converged | state.stuck
        take = better & ~done
        ratio = (state.at.value - at.value) / jnp.where(state.predicted > 0, state.predicted, 1)
        ratio = jnp.where(state.renewed, 1.0, ratio)
        eased = state.damping * jnp.clip(1 - (2 * ratio - 1) ** 3, 0.1, 2.0)  # Nielsen 1999
        damping = jnp.where(better, jnp.clip(eased, 1e-12, 1e12), state.damping * state.growth)
        growth = jnp.where(better, 2.0, state.growth * 2)
        x = jnp.where(take, trial, state.x)
        at = jax.tree.map(lambda new, old: jnp.where(take, new, old), at, state.at)
        each = jnp.broadcast_to(damping, x.shape)
        if projected:
            each = jnp.where(jnp.asarray(form.linear)[:, None, None], 1e-12, each)
        trial, predicted = _step(at, each, x, lower, upper, shared, total)
        small = (predicted >= 0) & (damping <= 1e-2) & jnp.isfinite(at.value)
        last = state.delta <= objective.delta
        enough = small & last & (predicted <= tolerance * at.value + tiny)
        # Huber's function begins with the parabola that it is for large delta, and is narrowed where that is solved.
        narrow = small & ~last & (predicted <= 1e-3 * at.value)
        delta = jnp.where(narrow, jnp.maximum(state.delta / 3, objective.delta), state.delta)
        return _State(
            x=x,
            at=at,
            delta=jnp.where(done, state.delta, delta),
            renewed=narrow,
            damping=jnp.where(done, state.damping, damping),
            growth=jnp.where(done, state.growth, growth),
            trial=trial,
            predicted=predicted,
            converged=state.converged | (~done & enough),
            stuck=state.stuck | (~done & ((damping > 1e11) | ~jnp.isfinite(predicted))),
            steps=jnp.where(done, state.steps, state.turn),
            turn=state.turn + 1,
        )

    def unfinished(state: _State) -> jax.Array:
        going: jax.Array = (state.turn < most) & jnp.any(~(state.converged | state.stuck))
        return going

    # What rounding leaves of the objective where every run is met.
    tiny = 1e-29 * total(over_rows(weight * (measured * objective.slope(measured, measured)) ** 2))
    nothing = jnp.zeros_like(total(jnp.zeros(shape, start.dtype)))
    given = nothing + delta
    delta = nothing + objective.delta
    if objective.delta < np.inf:
        error = objective.error(predict(list(start)), measured)
        rms = jnp.sqrt(total(over_rows(weight * error**2)) / total(over_rows(weight * jnp.ones_like(error))))
        wide = jnp.where(jnp.isfinite(rms), jnp.maximum(rms, delta), delta)
        delta = jnp.where(jnp.isfinite(given), given, wide)
    state = _State(
        x=start,
        at=_At(nothing + jnp.inf, jnp.zeros_like(start), jnp.zeros((count, *start.shape), start.dtype)),
        delta=delta,
        renewed=nothing < 1,
        damping=nothing + 1e-3,
        growth=nothing + 2,
        trial=start,
        predicted=nothing,
        converged=nothing > 1,
        stuck=nothing > 1,
        steps=jnp.zeros(nothing.shape, jnp.int32),
        turn=jnp.zeros((), jnp.int32),
    )
    state = lax.while_loop(unfinished, once(advance), state)
    # The last step gains nothing in the objective, whose root is the error of the coefficients, but digits of these.
    x = jnp.where(state.converged, state.trial, state.x)
    return Found(x, state.at.value, state.converged, state.steps, state.delta)


def _each(x: jax.Array) -> jax.Array:
    return x


def _summed(x: jax.Array) -> jax.Array:
    return jnp.sum(x, 0, keepdims=True)


class _Stops(NamedTuple):
    held: jax.Array
    step: jax.Array  # of what is held
    change: jax.Array
    again: jax.Array  # whether more has come to be held
    rounds: jax.Array


def _step(
    at: _At,
    damping: Any,
    x: jax.Array,
    lower: jax.Array,
    upper: jax.Array,
    shared: int,
    total: Callable[[jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """The point that the damped normal equations lead to between the bounds, and what is to be gained there."""
    matrix, gradient = at.matrix, at.gradient
    size = _totals(_diagonal(matrix), shared, total)
    slope = _totals(gradient, shared, total)
    held = ((x <= lower) & (slope > 0)) | ((x >= upper) & (slope < 0)) | ~(size > 0)

    def stopped(state: _Stops) -> _Stops:
        """What would pass a bound stops there, and the others are solved for again."""
        slope = _totals(gradient + _product(matrix, state.step), shared, total)
        diagonal = jnp.where(state.held, jnp.inf, damping * size)
        change = _solution(matrix, diagonal, jnp.where(state.held, 0, slope), shared, total)
        change = jnp.where(state.held, state.step, -change)
        crossing = ~state.held & ((x + change < lower) | (x + change > upper))
        held = state.held | crossing
        step = jnp.where(held, jnp.clip(x + change, lower, upper) - x, 0)
        return _Stops(held, step, change, jnp.any(crossing), state.rounds + 1)

    state = _Stops(held, jnp.zeros_like(x), jnp.zeros_like(x), jnp.asarray(True), jnp.asarray(0))
    held, step, change = lax.while_loop(lambda state: state.again & (state.rounds < 3), stopped, state)[:3]
    step = jnp.clip(x + jnp.where(held, step, change), lower, upper) - x
    gain = -jnp.sum(gradient * step, 0) - jnp.sum(step * _product(matrix, step), 0) / 2
    return x + step, total(gain)


def _products(jacobian: Sequence[jax.Array], weight: jax.Array) -> jax.Array:
    """Weighted sums over rows of the products of [row, block, problem], [number, number, block, problem]."""
    count = len(jacobian)
    if count > UNROLLED:
        each = jnp.stack(jacobian)
        found: jax.Array = jnp.einsum("pr...,qr...->pq...", each * weight, each)
        return found
    lower = [[jnp.sum(jacobian[i] * weight * jacobian[j], 0) for j in range(i + 1)] for i in range(count)]
    return jnp.stack([jnp.stack([lower[max(i, j)][min(i, j)] for j in range(count)]) for i in range(count)])


def _diagonal(matrix: jax.Array) -> jax.Array:
    return jnp.stack([matrix[i, i] for i in range(len(matrix))])


def _product(matrix: jax.Array, step: jax.Array) -> jax.Array:
    product: jax.Array = jnp.sum(matrix * step[None], 1)
    return product


def _totals(values: jax.Array, shared: int, total: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Values of coefficients, for shared ones the sum over the blocks in each of these."""
    if not shared:
        return values
    sums = jnp.broadcast_to(jax.vmap(total)(values[:shared]), (shared, *values.shape[1:]))
    return jnp.concatenate([sums, values[shared:]])


def _solution(
    matrix: jax.Array, diagonal: jax.Array, right: jax.Array, shared: int, total: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """The solution of the normal equations, with 0 where the diagonal is infinite.

    Rows of shared coefficients are summed over the blocks; the others are eliminated block by block.
    """
    if not shared:
        return symmetric_solution(matrix, diagonal, right)[0]
    free = jnp.isfinite(diagonal)
    border = jnp.sum(matrix[:shared, :shared], 2, keepdims=True)
    top, corner = right[:shared, :1], diagonal[:shared, :1]
    if len(right) == shared:
        return jnp.broadcast_to(symmetric_solution(border, corner, top)[0], right.shape)
    coupling = [jnp.where(free[shared:], matrix[shared:, s], 0) for s in range(shared)]
    own = matrix[shared:, shared:], diagonal[shared:]
    alone, *answers = symmetric_solution(*own, right[shared:], *coupling)
    schur = [[border[s, t] - total(jnp.sum(coupling[s] * answers[t], 0)) for t in range(shared)] for s in range(shared)]
    rest = [top[s] - total(jnp.sum(coupling[s] * alone, 0)) for s in range(shared)]
    found = symmetric_solution(jnp.stack([jnp.stack(row) for row in schur]), corner, jnp.stack(rest))[0]
    others = alone - functools.reduce(jnp.add, [found[s] * answers[s] for s in range(shared)])
    return jnp.concatenate([jnp.broadcast_to(found, (shared, *right.shape[1:])), others])
