"""Many small convex problems at once, each solved by a primal-dual interior-point method.

    minimise f(x)  subject to  sum(x[simplex]) = 1,  lower <= x <= upper,  g(x) <= 0

The batch axis is the last one of every array, so that whole vectors of problems go through each instruction, and the
few numbers of a problem are rows. All problems of a batch take their steps together, until the last one is done.
Derivatives of the optima are those of the conditions that they meet, whatever steps have led there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlaws.optimize.batches import batched

__all__ = ["Point", "Problem", "differentiable", "search", "solve", "symmetric_solution"]


class Problem(NamedTuple):
    """What is minimised, as functions of x and of the problem's own data, for one problem.

    Attributes:
        objective: f(x, data), a number.
        constraints: g(x, data), a vector, none of which may be positive; those that start without slack must be 0.
        on_simplex: For each x, whether it counts for the sum that must be 1.
        reach: No unknown changes by more in one step: as far as the derivatives say something about the functions.
    """

    objective: Callable[[jax.Array, Any], jax.Array]
    constraints: Callable[[jax.Array, Any], jax.Array]
    on_simplex: tuple[bool, ...]
    reach: float = math.inf


class Point(NamedTuple):
    """Unknowns and multipliers of a batch of problems.

    Attributes:
        x: The unknowns, [number of unknowns, batch].
        y: What one more of the sum costs, [batch].
        below: Multipliers of the lower bounds, [number of unknowns, batch].
        above: Multipliers of the upper bounds, [number of unknowns, batch].
        slack: What the constraints leave, [number of constraints, batch].
        z: Multipliers of the constraints, [number of constraints, batch].
        steps: The number of steps taken, [batch].
        converged: Whether the conditions of an optimum hold, [batch].
    """

    x: jax.Array
    y: jax.Array
    below: jax.Array
    above: jax.Array
    slack: jax.Array
    z: jax.Array
    steps: jax.Array
    converged: jax.Array


MAX_STEPS = 80
SOFTNESS = 1e6  # how much stiffer than the objective an active constraint counts for derivatives
STIFFNESS = 1e8  # what it costs in a step to leave an equation unmet, next to the objective
TO_BOUNDARY = 0.995  # how much of the way to a bound one step may go


def solve(problem: Problem, data: Any, start: jax.Array, lower: jax.Array, upper: jax.Array, slack: Any = 0.1) -> Point:
    """The optima, from a start strictly between the bounds and with at least such slacks, with their derivatives.

    What counts for the sum must sum to 1 at the start.

    A slack of 0 makes a constraint an equation, whose multiplier has either sign.

    Bounds that meet are no bounds but constants: such unknowns stay at their start, without multipliers.
    """
    known = lax.stop_gradient((data, start, lower, upper, slack))
    return differentiable(problem, data, start, lower, upper, search(problem, *known))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def differentiable(
    problem: Problem, data: Any, start: jax.Array, lower: jax.Array, upper: jax.Array, point: Point
) -> Point:
    """Optima that were found by `search`, with derivatives by data, bounds, and the start of what cannot move.

    They exist wherever the set of active constraints does not change, and are NaN where the search did not converge.
    """
    return point


def search(
    problem: Problem, data: Any, start: jax.Array, lower: jax.Array, upper: jax.Array, slack: Any = 0.1
) -> Point:
    """The optima as `solve` finds them, without derivatives."""
    eps = np.finfo(start.dtype).eps
    fixed = ~(lower < upper)
    first = _evaluate(problem, start, data)
    # Multipliers of the size of the derivatives, and complementary products that are alike.
    size = 1e-3 + jnp.max(jnp.abs(first.slope), axis=0)
    width = jnp.where(fixed, 1, jnp.minimum(upper - lower, 1))
    mu = 0.1 * size * jnp.mean(width, axis=0)
    low, high = _room(start, lower, upper)
    slack = jnp.where(jnp.equal(slack, 0), 0, jnp.maximum(-first.value, slack))
    point = Point(
        x=start,
        y=jnp.zeros_like(size),
        below=_bounded(mu / low, lower, fixed),
        above=_bounded(mu / high, upper, fixed),
        slack=slack,
        z=jnp.where(slack == 0, 0, mu / jnp.where(slack == 0, 1, slack)),
        steps=jnp.zeros(size.shape, jnp.int32),
        converged=jnp.zeros(size.shape, bool),
    )

    def unfinished(state: tuple[Point, jax.Array, jax.Array]) -> jax.Array:
        point, _, turn = state
        return (turn < MAX_STEPS) & jnp.any(~point.converged & (point.steps == turn))  # fewer steps: it is stuck

    def advance(state: tuple[Point, jax.Array, jax.Array]) -> tuple[Point, jax.Array, jax.Array]:
        point, sigma, turn = state
        new, sigma = _step(problem, data, point, lower, upper, fixed, size, sigma, eps)
        kept = jax.tree.map(lambda old, new: jnp.where(point.converged, old, new), point, new)
        return kept, sigma, turn + 1

    found, _, _ = lax.while_loop(unfinished, advance, (point, jnp.full_like(size, 0.3), jnp.zeros((), jnp.int32)))
    return found


class _Values(NamedTuple):
    slope: jax.Array
    curvature: Callable[[jax.Array], jax.Array]
    value: jax.Array
    jacobian: jax.Array


def _evaluate(problem: Problem, x: jax.Array, data: Any) -> _Values:
    """Derivatives of the objective, and values and derivatives of the constraints."""

    def lagrangian(x: jax.Array, data: Any, z: jax.Array) -> jax.Array:
        return problem.objective(x, data) + jnp.sum(z * problem.constraints(x, data))

    return _Values(
        slope=batched(jax.grad(problem.objective))(x, data),
        curvature=lambda z: batched(jax.hessian(lagrangian))(x, data, z),
        value=batched(problem.constraints)(x, data),
        jacobian=batched(jax.jacfwd(problem.constraints))(x, data),
    )


def _room(x: jax.Array, lower: jax.Array, upper: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How far it is to the bounds, never nothing (rounding could make it so); 1 where there is none."""
    eps, tiny = np.finfo(x.dtype).eps, np.finfo(x.dtype).tiny
    low = jnp.maximum(x - lower, tiny + 0.1 * eps * jnp.abs(lower))
    high = jnp.maximum(upper - x, tiny + 0.1 * eps * jnp.abs(upper))
    return jnp.where(jnp.isfinite(lower), low, 1), jnp.where(jnp.isfinite(upper), high, 1)


def _bounded(multipliers: jax.Array, bounds: jax.Array, fixed: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(bounds) & ~fixed, multipliers, 0)


def _step(
    problem: Problem,
    data: Any,
    point: Point,
    lower: jax.Array,
    upper: jax.Array,
    fixed: jax.Array,
    size: jax.Array,
    sigma: jax.Array,
    eps: Any,
) -> tuple[Point, jax.Array]:
    """One step of Newton's method on the conditions of an optimum, with products that are to be `mu` and not 0."""
    x, y, below, above, slack, z, steps, _ = point
    at = _evaluate(problem, x, data)
    size = jnp.minimum(size, 1e-3 + jnp.max(jnp.abs(at.slope), 0))  # the start may be far steeper than the optimum
    short = at.value + slack  # of feasibility; rounding would be multiplied by z / slack
    short = jnp.where(jnp.abs(short) <= 64 * eps, 0, short)
    low, high = _room(x, lower, upper)
    equal = slack == 0
    room = jnp.where(equal, 1, slack)
    on = jnp.asarray(problem.on_simplex)[:, None]
    products = jnp.sum(below * low, 0) + jnp.sum(above * high, 0) + jnp.sum(slack * z, 0)
    count = jnp.sum(below > 0, 0) + jnp.sum(above > 0, 0) + jnp.sum(~equal, 0)
    # Of the products; with less, rounding in the multipliers grows, and constraints are not known more exactly.
    enough = eps**0.75 * size + 16 * eps * jnp.sum(jnp.abs(z), 0)
    mu = jnp.maximum(sigma * products, 0.1 * enough) / jnp.maximum(count, 1)
    # Slacks are not to vanish while constraints are still to be met, or steps become too short to do so.
    mu = jnp.maximum(mu, 0.1 * jnp.max(jnp.abs(short) * jnp.minimum(jnp.abs(z), size), 0, initial=0))

    forces = at.jacobian * z[:, None]
    balance = jnp.where(fixed, 0, at.slope - y * on - below + above + jnp.sum(forces, 0))
    balanced = jnp.abs(balance) <= 64 * eps**0.75 * (size + jnp.abs(at.slope) + jnp.sum(jnp.abs(forces), 0))
    met = (short == 0) | (~equal & (at.value <= 0) & (z * jnp.abs(short) <= enough))
    done = (products <= enough) & jnp.all(balanced, 0) & jnp.all(met, 0)

    stiffness = STIFFNESS * size / jnp.maximum(jnp.max(at.jacobian**2, 1), eps)
    weight = jnp.where(equal, stiffness, z / room)
    push = jnp.where(equal, z + stiffness * short, (mu + z * short) / room)
    diagonal = _bounded(below / low, lower, fixed) + _bounded(above / high, upper, fixed)
    right = -at.slope - jnp.sum(at.jacobian * push[:, None], 0)
    right = right + _bounded(mu / low, lower, fixed) - _bounded(mu / high, upper, fixed)
    dx, new_y = _direction(at, at.curvature(z), weight, diagonal, on, fixed)(right, jnp.zeros_like(mu))
    moved = jnp.sum(at.jacobian * dx[None], 1)
    dslack = jnp.where(equal, 0, -short - moved)
    dz = jnp.where(equal, stiffness * (short + moved), (mu - z * slack - z * dslack) / room)
    dbelow = _bounded(mu / low - below - below * dx / low, lower, fixed)
    dabove = _bounded(mu / high - above + above * dx / high, upper, fixed)

    primal = jnp.minimum(jnp.minimum(_longest(low, dx), _longest(high, -dx)), _longest(slack, dslack))
    primal = jnp.minimum(primal, problem.reach / jnp.max(jnp.abs(dx), 0))
    dual = jnp.minimum(
        jnp.minimum(_longest(below, dbelow), _longest(above, dabove)), _longest(z, jnp.where(equal, 0, dz))
    )
    new_x, new_slack = jnp.clip(x + primal * dx, lower, upper), slack + primal * dslack
    # What a constraint leaves beyond its slack is slack too: that keeps bent constraints from being missed.
    left = -batched(problem.constraints)(new_x, data)
    new_slack = jnp.where(equal, 0, jnp.maximum(jnp.maximum(new_slack, left), np.finfo(x.dtype).tiny))
    new = Point(
        x=new_x,
        y=y + dual * (new_y - y),
        below=below + dual * dbelow,
        above=above + dual * dabove,
        slack=new_slack,
        z=z + dual * dz,
        steps=steps + 1,
        converged=done,
    )
    # A point that has converged stays as it was when that was found out, and so does one that runs off to infinity.
    finite = functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(part), 0) for part in (new.x, new.slack, new.z)])
    stay = done | ~finite
    new = jax.tree.map(lambda old, new: jnp.where(stay, old, new), point._replace(converged=done), new)
    least = jnp.minimum(primal, dual)
    return new, jnp.where(least > 0.9, 0.05, jnp.where(least > 0.5, 0.2, 0.5)).astype(sigma.dtype)


def _direction(
    at: _Values,
    hessian: jax.Array,
    weight: jax.Array,
    diagonal: jax.Array,
    on: jax.Array,
    fixed: jax.Array,
) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """What gives the step in x, and the multiplier of its total over the simplex, for a right side and that total.

    These are what remains of Newton's equations when the multipliers of bounds and constraints are eliminated.
    """
    matrix, cost = hessian, jnp.zeros(hessian.shape[-1], hessian.dtype)
    if weight.shape[0]:
        stiff = jnp.sum(weight[:, None, None] * at.jacobian[:, :, None] * at.jacobian[:, None], 0)
        # The total is what it is, whatever another one would cost: with a cost, the matrix is regular where
        # constraints that leave nothing to choose would make it all but singular.
        cost = jnp.max(jnp.abs(stiff), (0, 1))
        matrix = matrix + stiff + cost * (on[:, None] & on[None, :, 0, None])
    held = jnp.where(fixed, jnp.inf, diagonal)

    def solution(right: jax.Array, total: jax.Array) -> tuple[jax.Array, jax.Array]:
        total_side = jnp.broadcast_to(on, right.shape).astype(right.dtype)
        a, b = symmetric_solution(matrix, held, *(jnp.where(fixed, 0, side) for side in (right, total_side)))
        size = jnp.sum(on * b, 0)
        y = (total - jnp.sum(on * a, 0)) / jnp.where(size == 0, jnp.inf, size)  # 0 if nothing is free to move
        return a + y * b, y - cost * total

    return solution


@differentiable.defjvp
def _differentiable_jvp(problem: Problem, primals: Any, tangents: Any) -> tuple[Point, Point]:
    """How the conditions of an optimum move it: Newton's equations with their derivatives on the right."""
    data, _, lower, upper, _ = primals
    data_dot, start_dot, lower_dot, upper_dot, _ = tangents
    point = differentiable(problem, *primals)
    x, _, below, above, slack, z, _, converged = point
    fixed = ~(lower < upper)
    low, high = _room(x, lower, upper)
    on = jnp.asarray(problem.on_simplex)[:, None]
    at = _evaluate(problem, x, data)
    carried = jnp.where(fixed, start_dot, 0)

    def conditions(x: jax.Array, data: Any) -> tuple[jax.Array, jax.Array]:
        now = _evaluate(problem, x, data)
        return now.slope + jnp.sum(now.jacobian * z[:, None], 0), now.value

    _, (slope_dot, value_dot) = jax.jvp(conditions, (x, data), (carried, data_dot))
    low_dot = jnp.where(_bounded(below, lower, fixed) > 0, lower_dot, 0)
    high_dot = jnp.where(_bounded(above, upper, fixed) > 0, upper_dot, 0)

    # What is active is stiff beyond all digits: multiplier / slack is 1e13. With a softness, that of the multipliers
    # is mended from one round to the next, which makes a millionth of the error.
    hessian = at.curvature(z)
    soft = 1 / (SOFTNESS * (jnp.max(jnp.abs(hessian), (0, 1)) + jnp.max(jnp.abs(at.slope), 0)))
    by_lower, by_upper = below / (low + soft * below), above / (high + soft * above)
    weight = jnp.where(slack == 0, 1 / soft, z / jnp.where(slack == 0, 1, slack + soft * z))  # without: an equation
    solution = _direction(at, hessian, weight, by_lower + by_upper, on, fixed)
    total = -jnp.sum(on * carried, 0)
    dbelow, dabove, dz = jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros_like(z)
    for _ in range(3):
        right = by_lower * (low_dot + soft * dbelow) + by_upper * (high_dot - soft * dabove) - slope_dot
        right = right - jnp.sum(at.jacobian * (weight * (value_dot + soft * dz))[:, None], 0)
        dx, dy = solution(right, total)
        dbelow = by_lower * (low_dot - dx + soft * dbelow)
        dabove = by_upper * (dx - high_dot + soft * dabove)
        value = value_dot + jnp.sum(at.jacobian * dx[None], 1)
        dz = weight * (value + soft * dz)
    known = jnp.where(converged, 1, jnp.nan)
    moved = [change * known for change in (dx + carried, dy, dbelow, dabove, -value, dz)]
    counts: Any = [np.zeros(converged.shape, jax.dtypes.float0)] * 2
    return point, Point(*moved, *counts)


def _longest(room: jax.Array, change: jax.Array) -> jax.Array:
    """The part of a change, at most all, that leaves room."""
    part = jnp.where(change < 0, -TO_BOUNDARY * room / change, jnp.inf)
    return jnp.minimum(jnp.min(part, axis=0, initial=jnp.inf), 1)


UNROLLED = 8  # unknowns; elimination of more is a loop, which takes less to compile


def symmetric_solution(matrix: jax.Array, diagonal: jax.Array, *rights: jax.Array) -> list[jax.Array]:
    """The solutions for a positive definite matrix plus a diagonal, in which an infinity makes the unknown zero.

    Args:
        matrix: [unknown, unknown, ...].
        diagonal: [unknown, ...].
        *rights: Right sides, [unknown, ...]. They stay apart, as each solution is linear in its own side alone, which
            reverse derivatives rely on.
    """
    n = matrix.shape[0]
    index = jnp.arange(n).reshape(n, *[1] * (diagonal.ndim - 1))
    own = jnp.sum(jnp.where(index[:, None] == index[None], matrix, 0), 1)
    # Where the problem is not convex, a step of the same length in the direction that goes down.
    least = np.finfo(matrix.dtype).eps * (jnp.abs(own) + diagonal)
    least = jnp.maximum(least, np.finfo(matrix.dtype).tiny)

    def eliminated(j: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
        rows, sides, inverse = state
        pivot = 1 / jnp.maximum(jnp.abs(rows[j, j] + diagonal[j]), least[j])
        factor = jnp.where(index > j, rows[:, j] * pivot, 0)
        sides = [side - factor * side[j] for side in sides]
        return rows - factor[:, None] * rows[j], sides, jnp.where(index == j, pivot, inverse)

    def substituted(i: Any, sides: list[jax.Array]) -> list[jax.Array]:
        j = n - 1 - i
        above = jnp.where(index < j, rows[:, j], 0)
        found = [side[j] * inverse[j] for side in sides]
        return [jnp.where(index == j, x, side - above * x) for side, x in zip(sides, found, strict=True)]

    rows, sides, inverse = _repeated(n, eliminated, (matrix, [*rights], jnp.zeros_like(diagonal)))
    found: list[jax.Array] = _repeated(n, substituted, sides)
    return found


def _repeated(n: int, body: Callable[[Any, Any], Any], state: Any) -> Any:
    if n > UNROLLED:
        return lax.fori_loop(0, n, body, state)
    for i in range(n):
        state = body(i, state)
    return state
