"""Minima of many small problems at once, from near them, by Newton's method.

    minimise  sum over rows of  weight * rho(error(f(coefficients, row), measured))  subject to  lower <= x <= upper

where rho is half of the square, or Huber's function, which bends within delta of 0 only. As delta is far below most
errors, a quadratic model of the objective is good up to the nearest run's delta alone. So the model of a step is the
sum of rho of errors that are linear in the step, and a quadratic term of the second derivatives of the errors, each
times the derivative of rho (Fletcher 1987, chapter 14, for sums of absolute values). Where the errors that are within
delta at its minimum are those that were at the one before, that takes one system of equations; otherwise it is found
by an interior-point method, in which the quadratic term is made convex.

Coefficients that may have any order of magnitude, such as weights of powers, move along exponentials: in their
logarithms, valleys of the objective are all but straight.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlaws.fitting.form import Form
from jaxlaws.fitting.levenberg_marquardt import SMALL, Found, damped, eased, rounding_of
from jaxlaws.fitting.normal_equations import UNROLLED, Blocks, diagonal_of, normal_equations, product, sums
from jaxlaws.fitting.objectives import OBJECTIVES
from jaxlaws.fitting.once import once

__all__ = ["refine"]

MOST_BENT = 64  # pairs of coefficients; with more, second derivatives take too long to compile, and are left out
LIFTS, SIGNS = 13, 5  # steps that double small eigenvalues on the way to the sign of a matrix, and the last ones
ARC = (1, 1 / 4, 1 / 16, 1 / 128)  # parts of a step that are tried
FURTHER = 8.0  # by how much longer a step is tried as well, and again after each success: valleys may be straight
FURTHEST = 1e5  # times a step
TOLERANCE = 1e-12  # of the objective, that another step would gain
INNER = 16  # steps of the interior-point method, at most
TO_BOUNDARY = 0.99
LITTLE = 1e-5  # damping that leaves most steps as they are
LEAST = 1e-16  # damping
SETTLED = 1e-10  # what may be left to gain where rounding keeps steps from gaining anything


class _At(NamedTuple):
    """The objective near a point."""

    value: jax.Array
    little: jax.Array  # of the value, that counts as nothing
    error: jax.Array  # [row, block, problem]
    jacobian: Any  # of the errors, [row, block, problem] for each number, or all in one array where they are many
    squares: jax.Array  # the diagonal of the normal equations, [number, block, problem]
    bending: jax.Array  # second derivatives of the errors, each times the derivative of rho, [number, number, ...]
    convex: jax.Array  # the same with the absolute values of its eigenvalues


class _State(NamedTuple):
    x: jax.Array
    at: _At
    damping: jax.Array
    growth: jax.Array
    trial: jax.Array
    predicted: jax.Array
    part: jax.Array  # of the step that the trial is
    force: jax.Array  # derivatives of rho at the trial, as the model has them
    kept: jax.Array  # those at x
    least: jax.Array  # the least that was predicted to be gained from x, where the damping did not keep it small
    converged: jax.Array
    stuck: jax.Array
    steps: jax.Array
    turn: jax.Array


def refine(
    form: Form,
    bounds: Any,
    data: Any,
    measured: jax.Array,
    weight: jax.Array,
    start: jax.Array,
    most: Any,
    damping: Any,
) -> Found:
    """The nearest minimum from where a search or another fit ended.

    Args:
        form: What is fitted, but for its bounds.
        bounds: Least and largest values, as `form.bounds` gives them.
        data: What `form.at` takes.
        measured: [row, block, problem or 1].
        weight: [row, block, problem or 1]; rows of weight 0 do not count.
        start: [coefficient, block, problem].
        most: How many steps are taken at most.
        damping: Where the damping of steps begins.
    """
    objective = OBJECTIVES[form.objective]
    delta = objective.delta
    lower, upper = bounds
    blocks = Blocks(form.shared_count, lower, upper, form.scaled)
    total = blocks.total
    count, shape = start.shape[0], start.shape[1:]
    used = weight > 0
    tiny = total(rounding_of(objective, measured, weight))

    def objective_of(error: jax.Array) -> jax.Array:
        found: jax.Array = jnp.sum(jnp.where(used, weight * objective.of_errors(error), 0), 0)
        return found

    def near(point: Sequence[jax.Array], force: jax.Array, first: jax.Array) -> tuple[_At, jax.Array]:
        x = jnp.stack([*point])
        predicted, slopes = form.derivatives(point, range(count), data)
        slope = jnp.where(used, objective.slope(predicted, measured), 0)
        error = jnp.where(used, objective.error(predicted, measured), 0)
        jacobian = [jnp.where(used, each * slope, 0) for each in slopes]
        clipped = jnp.where(first, jnp.clip(error, -delta, delta), force) if delta < np.inf else error
        force = weight * clipped
        pairs = form.bent if len(form.bent) <= MOST_BENT else ()
        seconds = [form.slope(form.slope(lambda x: form.at(x, data), j), i)(point) for i, j in pairs]
        terms = [weight * objective.of_errors(error), *(force * slope * second for second in seconds)]
        terms = [jnp.where(used, term, 0) for term in terms]
        each = tuple(jacobian) if count <= UNROLLED else jnp.stack(jacobian)
        gradient, squares, (value, *bent) = _gradient_and_squares(each, weight, force, terms)
        nothing = jnp.zeros(shape, force.dtype)
        rows = [[nothing] * count for _ in range(count)]
        for (i, j), second in zip(pairs, bent, strict=True):
            rows[i][j] = rows[j][i] = second
        bending = jnp.stack([jnp.stack(row) for row in rows])
        if objective.bend:
            bending = bending + objective.bend * normal_equations(jacobian, jnp.where(used, force, 0), force)[0]
        # What steps multiply bends along a step.
        slopes_over = gradient / jnp.where(blocks.multiplied(x), x, jnp.inf)
        bending = bending + jnp.eye(count)[:, :, None, None] * blocks.totals(slopes_over)
        value = total(value)
        convex = _convex(bending, squares)
        return _At(value, TOLERANCE * value + tiny, error, each, squares, bending, convex), clipped

    def advance(state: _State) -> _State:
        robust = delta < np.inf
        new, clipped = near([*state.trial], state.force, state.turn == 0)
        nothing_to_gain = jnp.abs(state.predicted) <= state.at.little  # the ratio of gains is then one of rounding
        better = new.value <= state.at.value + jnp.where(nothing_to_gain, state.at.little, 0)  # not for NaN
        done = state.converged | state.stuck
        take = better & ~done
        ratio = (state.at.value - new.value) / jnp.where(state.predicted > 0, state.predicted, 1)
        ease = eased(ratio, nothing_to_gain)
        ease = jnp.where((state.part == 1) | nothing_to_gain, ease, 1 / state.part)
        damping, growth = damped(state.damping, state.growth, better, ease, LEAST)
        x = jnp.where(take, state.trial, state.x)
        at = jax.tree.map(lambda new, old: jnp.where(take, new, old), new, state.at)
        kept = jnp.where(take, clipped, state.kept)
        diagonal = damping * blocks.totals(at.squares)
        if robust:
            model = _robust(at, kept, weight, diagonal, x, blocks, delta)
        else:
            model = _quadratic(at, weight, diagonal, x, blocks)
        step = model.step
        # Errors bend along the step. What leads back to the errors of the model makes it an arc (Mayne and Polak 1982).
        there = objective.error(form.at([*blocks.moved(x, step)], data), measured)
        bent = jnp.where(used, there - at.error - _moved(at.jacobian, step), 0)
        pull = _gradient(at.jacobian, model.weight * jnp.where(jnp.isfinite(bent), bent, 0))
        turn = blocks.step(model.matrix, pull, diagonal, x + step)
        turn = jnp.where(jnp.isfinite(bent).all(0), turn, 0)
        reach = jnp.where(take & (state.part > 1), jnp.minimum(state.part * FURTHER, FURTHEST), FURTHER)
        parts = jnp.stack([*(jnp.full_like(reach, t) for t in (*ARC, 1)), reach])
        arc = [blocks.moved(x, t * step + t**2 * turn) for t in ARC]
        points = jnp.stack([*arc, jnp.clip(x + step, *bounds), blocks.moved(x, reach * step)])
        ahead = jax.vmap(lambda point: objective.error(form.at([*point], data), measured))(points)
        values = jax.vmap(lambda error: total(objective_of(error)))(ahead)
        best = jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf), 0)
        trial, force, part = points[0], model.force, parts[0]
        for k in range(1, len(points)):
            part = jnp.where(best == k, parts[k], part)
            trial = jnp.where(best == k, points[k], trial)
            force = jnp.where(best == k, jnp.clip(jnp.where(used, ahead[k], 0), -delta, delta), force)
        predicted = model.gain
        small = (predicted >= -at.little) & (damping <= jnp.where(better, SMALL, LITTLE)) & jnp.isfinite(at.value)
        least = jnp.where(small, predicted, jnp.where(take, jnp.inf, state.least))
        enough = small & (predicted <= at.little)
        stuck = (damping > 1e11) | ~jnp.isfinite(predicted)
        enough = enough | (stuck & jnp.isfinite(at.value) & (least <= SETTLED * at.value))
        return _State(
            x=x,
            at=at,
            damping=jnp.where(done, state.damping, damping),
            growth=jnp.where(done, state.growth, growth),
            trial=jnp.where(done, state.trial, trial),
            part=part,
            predicted=predicted,
            force=force,
            kept=kept,
            least=least,
            converged=state.converged | (~done & enough),
            stuck=state.stuck | (~done & stuck),
            steps=jnp.where(done, state.steps, state.turn),
            turn=state.turn + 1,
        )

    def unfinished(state: _State) -> jax.Array:
        going: jax.Array = (state.turn < most) & jnp.any(~(state.converged | state.stuck))
        return going

    nothing = jnp.zeros_like(total(jnp.zeros(shape, start.dtype)))
    by_row = jnp.zeros((len(measured), *shape), start.dtype)
    state = _State(
        x=start,
        at=_At(
            nothing + jnp.inf,
            nothing - 1,
            by_row,
            (by_row,) * count if count <= UNROLLED else jnp.zeros((count, *by_row.shape), start.dtype),
            jnp.zeros_like(start),
            jnp.zeros((count, *start.shape), start.dtype),
            jnp.zeros((count, *start.shape), start.dtype),
        ),
        damping=nothing + damping,
        growth=nothing + 2,
        trial=start,
        predicted=nothing,
        part=nothing + 1,
        force=by_row,
        kept=by_row,
        least=nothing + jnp.inf,
        converged=nothing > 1,
        stuck=nothing > 1,
        steps=jnp.zeros(nothing.shape, jnp.int32),
        turn=jnp.zeros((), jnp.int32),
    )
    state = lax.while_loop(unfinished, once(advance), state)
    # The last step gains nothing in the objective, whose root is the error of the coefficients, but digits of these.
    error = objective.error(form.at([*state.trial], data), measured)
    last = total(objective_of(error))
    better = state.converged & (last <= state.at.value + state.at.little)
    x, value = jnp.where(better, state.trial, state.x), jnp.where(better, last, state.at.value)
    return Found(x, value, state.converged, state.steps, state.damping)


def _moved(jacobian: Any, step: jax.Array) -> jax.Array:
    """What a step changes errors by, [row, block, problem]."""
    if len(step) > UNROLLED:
        found: jax.Array = jnp.sum(jacobian * step[:, None], 0)
        return found
    moved: jax.Array = functools.reduce(jnp.add, [s * t for s, t in zip(jacobian, step, strict=True)])
    return moved


def _gradient(jacobian: Any, force: jax.Array) -> jax.Array:
    """[number, block, problem]."""
    if len(jacobian) > UNROLLED:
        found: jax.Array = jnp.sum(jacobian * force, 1)
        return found
    return jnp.stack(sums([slope * force for slope in jacobian]))


def _gradient_and_squares(
    jacobian: Any, weight: jax.Array, force: jax.Array, others: Sequence[jax.Array]
) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
    """The same, the diagonal of the normal equations, and sums over the rows of other terms."""
    if len(jacobian) > UNROLLED:
        return jnp.sum(jacobian * force, 1), jnp.sum(jacobian * (weight * jacobian), 1), sums(others)
    gradient = [slope * force for slope in jacobian]
    squares = [slope * (weight * slope) for slope in jacobian]
    found, count = sums([*gradient, *squares, *others]), len(jacobian)
    return jnp.stack(found[:count]), jnp.stack(found[count : 2 * count]), found[2 * count :]


class _Model(NamedTuple):
    """The minimum of a model."""

    step: jax.Array
    gain: jax.Array  # of the objective, without damping
    force: jax.Array  # the derivatives of rho there
    weight: jax.Array  # the second derivatives of rho there times weights
    matrix: jax.Array


def _quadratic(at: _At, weight: jax.Array, damping: jax.Array, x: jax.Array, blocks: Blocks) -> _Model:
    """The minimum for squares."""
    squares, slope = normal_equations(at.jacobian, weight, weight * at.error)
    step = blocks.step(squares + at.bending, slope, damping, x)
    convex = _is_solved(at, squares + at.bending, slope, damping, x, step, blocks)
    bending = jnp.where(convex, at.bending, at.convex)
    # Once more, as the squares in the matrix lose digits that the errors have (Bjorck 1987).
    step = jnp.where(convex, step, 0)
    error = at.error + _moved(at.jacobian, step)
    slope = _gradient(at.jacobian, weight * error) + product(bending, step) + damping * step
    matrix = squares + bending
    step = step + blocks.step(matrix, slope, damping, x + step)
    moved = _moved(at.jacobian, step)
    gain = jnp.sum(weight * moved * (at.error + moved / 2), 0) + jnp.sum(step * product(bending, step), 0) / 2
    return _Model(step, -blocks.total(gain), at.error + moved, weight, matrix)


def _is_solved(
    at: _At, matrix: jax.Array, slope: jax.Array, damping: jax.Array, x: jax.Array, step: jax.Array, blocks: Blocks
) -> jax.Array:
    """Whether a step solves its equations, which it does if their matrix is positive definite."""
    free = (x + step > blocks.lower) & (x + step < blocks.upper)
    right = blocks.totals(jnp.where(free, slope, 0))
    wrong = jnp.where(free, right + blocks.totals(product(matrix, step)) + damping * step, 0)
    scale = jnp.sqrt(blocks.totals(diagonal_of(jnp.abs(matrix))) + damping)
    scale = jnp.where(scale > 0, scale, 1)
    size = jnp.max(jnp.abs(right / scale), 0) + jnp.sqrt(at.little)
    solved = (jnp.max(jnp.abs(wrong / scale), 0) <= 1e-6 * size) & (jnp.sum(step * slope, 0) <= at.little)
    return jnp.all(solved, 0, keepdims=True) if blocks.shared else solved


def _convex(matrix: jax.Array, scale: jax.Array) -> jax.Array:
    """The matrix with the absolute values of its eigenvalues, in units in which `scale` is 1 on the diagonal.

    It is the matrix times its sign, to which the iteration of Newton and Schulz leads (Higham 2008, 5.3). Eigenvalues
    too small for their sign to be found count as if they were somewhat larger.
    """

    def times(a: jax.Array, b: jax.Array) -> jax.Array:
        product: jax.Array = jnp.sum(a[:, :, None] * b[None], 1)
        return product

    root = jnp.sqrt(jnp.where(scale > 0, scale, 1))
    unit = root[:, None] * root[None]
    matrix = matrix / unit
    norm = jnp.sqrt(jnp.sum(matrix**2, (0, 1)))
    norm = jnp.where(norm > 0, norm, 1)

    def nearer(turn: jax.Array, x: jax.Array) -> jax.Array:
        slope = jnp.where(turn < LIFTS, 2, 1.5)
        return slope * x - (slope - 1) * times(x, times(x, x))

    sign = lax.fori_loop(0, LIFTS + SIGNS, nearer, matrix / norm)
    one = jnp.eye(len(matrix))[:, :, None, None]
    found = times(matrix, sign) + norm * 2.0**-LIFTS * (one - times(sign, sign))
    return (found + jnp.swapaxes(found, 0, 1)) / 2 * unit


class _Inner(NamedTuple):
    step: jax.Array
    error: jax.Array  # after the step
    full: jax.Array  # with all of the last change
    upper: jax.Array  # how far derivatives of rho are from delta
    lower: jax.Array  # and from -delta
    above: jax.Array  # by how much errors are beyond delta
    below: jax.Array
    central: jax.Array  # how far the next step goes towards the central path
    gain: jax.Array
    done: jax.Array
    turn: jax.Array


def _robust(
    at: _At, guess: jax.Array, weight: jax.Array, damping: jax.Array, x: jax.Array, blocks: Blocks, delta: float
) -> _Model:
    """The same for Huber's function, with a guess of its derivatives there.

    Its value is the least of f**2 / 2 + delta * (a + b) over splits of an error into f + a - b, where a and b are not
    negative. On the central path (delta - f) * a and (delta + f) * b are the same small number for all rows.
    """
    total, objective = blocks.total, OBJECTIVES["huber_log"]
    used = weight > 0
    rows = total(jnp.sum(weight * jnp.ones_like(at.error), 0))

    def inside(*changes: tuple[jax.Array, jax.Array]) -> jax.Array:
        """How far changes may go, with all parts positive."""
        far = [jnp.where(used & (d < 0), -TO_BOUNDARY * part / jnp.where(d < 0, d, -1), jnp.inf) for part, d in changes]
        return jnp.min(functools.reduce(jnp.minimum, far), 0)

    def turned(state: _Inner) -> _Inner:
        upper, lower, above, below = state.upper, state.lower, state.above, state.below
        first = state.turn == 0  # in which the errors below delta are taken to be those of the model before
        gap = total(jnp.sum(weight * (upper * above + lower * below), 0))
        mu = state.central * gap / (2 * rows)

        def on_path() -> tuple[jax.Array, ...]:
            force = jnp.where(upper < lower, delta - upper, lower - delta)
            share = 1 / (1 + above / upper + below / lower)
            rest = state.error - force - mu / upper + mu / lower
            return share, rest, weight * (force + share * rest), at.convex

        def from_guess() -> tuple[jax.Array, ...]:
            share = jnp.where(inner, 1.0, 0.0)
            rest = state.error - guess
            return share, rest, weight * (guess + share * rest), at.bending

        share, rest, pull, bending = lax.cond(first, from_guess, on_path)
        matrix, slope = normal_equations(at.jacobian, weight * share, pull)
        matrix, slope = matrix + bending, slope + product(bending, state.step) + damping * state.step
        change = blocks.step(matrix, slope, damping, x + state.step)
        full = state.step + change
        moved = _moved(at.jacobian, change)
        full_error = state.error + moved
        gain = jnp.sum(weight * objective.of_errors(full_error), 0) + jnp.sum(full * product(bending, full), 0) / 2
        gain = at.value - total(gain)

        def checked() -> _Inner:
            """Whether that is the minimum."""
            met = (jnp.abs(full_error) <= delta) == inner
            met = jnp.all((met & (inner | (full_error * guess > 0))) | ~used, 0, keepdims=True)
            met = jnp.all(met, 1, keepdims=True) if blocks.shared else met
            met = met[0] & _is_solved(at, matrix, slope, damping, x, change, blocks) & (gain >= -at.little)
            return state._replace(done=state.done | met)

        def further() -> _Inner:
            """One step of the interior-point method."""
            dforce = share * (moved + rest)
            dabove = (mu + above * dforce) / upper - above
            dbelow = (mu - below * dforce) / lower - below
            length = inside((upper, -dforce), (lower, dforce), (above, dabove), (below, dbelow))
            length = jnp.minimum(blocks.least(length), 1)
            left = (1 - length * (1 - state.central)) * gap
            enough = (left <= 0.1 * gain + at.little) & (length > 0.5)
            return state._replace(
                step=state.step + length * change,
                error=state.error + length * moved,
                upper=upper - length * dforce,
                lower=lower + length * dforce,
                above=above + length * dabove,
                below=below + length * dbelow,
                central=jnp.where(length > 0.9, 0.05, jnp.where(length > 0.5, 0.2, 0.5)),
                done=state.done | enough | ~jnp.isfinite(gain),
            )

        new = lax.cond(first, checked, further)._replace(full=full, gain=gain)
        kept: _Inner = jax.tree.map(lambda new, old: jnp.where(state.done, old, new), new, state)
        return kept._replace(turn=state.turn + 1)

    inner = jnp.abs(guess) < delta
    near = jnp.clip(at.error, -0.9 * delta, 0.9 * delta)
    least = 0.1 * delta
    nothing = jnp.zeros_like(rows)
    state = _Inner(
        step=jnp.zeros_like(x),
        error=at.error,
        full=jnp.zeros_like(x),
        upper=delta - near,
        lower=delta + near,
        above=jnp.maximum(at.error - near, least),
        below=jnp.maximum(near - at.error, least),
        central=nothing + 0.2,
        gain=nothing,
        done=~jnp.isfinite(at.value),
        turn=jnp.zeros((), jnp.int32),
    )
    state = lax.while_loop(lambda s: (s.turn < INNER) & jnp.any(~s.done), turned, state)
    gain = jnp.where(jnp.isfinite(at.value), state.gain, jnp.nan)
    curvature = weight / (1 + state.above / state.upper + state.below / state.lower)
    return _Model(
        step=state.full,
        gain=gain,
        force=jnp.clip(at.error + _moved(at.jacobian, state.full), -delta, delta),
        weight=curvature,
        matrix=normal_equations(at.jacobian, curvature, curvature)[0] + at.convex,
    )
