"""Many small problems of least squares at once, each solved by the method of Levenberg and Marquardt.

    minimise  sum over rows of  weight * error(f(coefficients, row), measured)**2 / 2  subject to  lower <= x <= upper

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

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlaws.fitting.form import Form
from jaxlaws.fitting.normal_equations import Blocks, normal_equations, product
from jaxlaws.fitting.objectives import OBJECTIVES, Objective, is_robust
from jaxlaws.fitting.once import once

__all__ = ["SMALL", "TOLERANCE", "Found", "damped", "eased", "rounding_of", "search"]

TOLERANCE = 1e-13  # of the objective, that another step would gain
FACTOR = 3.0  # logarithm of what a step multiplies a coefficient with, at most
ROUGHLY = 1e-9  # the same where the search is for the start of another one
SMALL = 1e-10  # damping that leaves steps as they are
LITTLE = 1e-2  # damping that leaves most of them as they are
LEAST = 1e-12  # damping
EASE = 1e-4  # of the damping that is left where there is nothing to gain with more


class Found(NamedTuple):
    """Where the search ended.

    Attributes:
        x: Coefficients, shared ones first, [coefficient, block, problem]; shared ones alike in all blocks.
        value: The objective there, [block, problem]; with shared coefficients, [1, problem].
        converged: Whether nothing less is near, of the same shape.
        steps: The number of steps, of the same shape.
        damping: What the search would go on with, of the same shape.
    """

    x: Any
    value: Any
    converged: Any
    steps: Any
    damping: Any


class _At(NamedTuple):
    """The objective near a point: value, gradient and matrix of second derivatives without those of predictions."""

    value: jax.Array
    gradient: jax.Array
    matrix: jax.Array


class _State(NamedTuple):
    x: jax.Array
    at: _At
    damping: jax.Array
    growth: jax.Array
    trial: jax.Array
    predicted: jax.Array
    enough: jax.Array  # whether that is nothing in the objective; in its root, the coefficients, it has digits
    converged: jax.Array
    stuck: jax.Array
    steps: jax.Array
    turn: jax.Array


def eased(ratio: jax.Array, nothing_to_gain: jax.Array) -> jax.Array:
    """What damping is multiplied with, by the gain of a step over what was predicted (Nielsen 1999)."""
    return jnp.where(nothing_to_gain, EASE, jnp.clip(1 - (2 * ratio - 1) ** 3, 0.1, 2.0))


def damped(
    damping: jax.Array, growth: jax.Array, better: jax.Array, ease: jax.Array, least: float
) -> tuple[jax.Array, jax.Array]:
    """The damping after a step, and what it grows with next: ever more while steps gain nothing."""
    found = jnp.where(better, jnp.clip(damping * ease, least, 1e12), damping * growth)
    return found, jnp.where(better, 2.0, growth * 2)


def rounding_of(objective: Objective, measured: Any, weight: Any) -> Any:
    """What rounding leaves of the objective where every run is met, [block, problem]."""
    size = measured * objective.slope(measured, measured)
    return 1e-29 * jnp.sum(jnp.where(weight > 0, weight * size**2, 0), 0)


def search(
    form: Form,
    bounds: Any,
    data: Any,
    measured: jax.Array,
    weight: jax.Array,
    start: jax.Array,
    most: Any,
    damping: Any,
) -> Found:
    """The nearest minimum from each start.

    Of robust objectives, the minimum of the squares of relative errors, from which they are minimised.

    Args:
        form: What is fitted, but for its bounds.
        bounds: Least and largest values, as `form.bounds` gives them.
        data: What `form.at` takes.
        measured: [row, block, problem or 1].
        weight: [row, block, problem or 1]; rows of weight 0 do not count.
        start: [coefficient, block, problem]; those of linear coefficients are not used.
        most: How many steps are taken at most.
        damping: Where the damping of steps begins.
    """
    robust = is_robust(form.objective)
    objective = OBJECTIVES["relative" if robust else form.objective]
    tolerance = ROUGHLY if robust else TOLERANCE
    lower, upper = bounds
    blocks = Blocks(form.shared_count, lower, upper, form.scaled)
    total = blocks.total
    count, shape = start.shape[0], start.shape[1:]
    linear = [i for i, is_linear in enumerate(form.linear) if is_linear]
    shared_linear = sum(i < form.shared_count for i in linear)
    of_linear = Blocks(shared_linear, lower[np.asarray(linear, int)], upper[np.asarray(linear, int)])
    span = jnp.asarray(form.span)[:, None, None]
    used = weight > 0

    def near(point: Sequence[jax.Array], which: Sequence[int]) -> _At:
        predicted, slopes = form.derivatives(point, which, data)
        error, slope = objective.error(predicted, measured), objective.slope(predicted, measured)
        jacobian = [jnp.where(used, each * slope, 0) for each in slopes]
        force = jnp.where(used, weight * error, 0)
        of_error = jnp.where(used, weight * error**2 / 2, 0)
        matrix, gradient, value = normal_equations(jacobian, jnp.where(used, weight, 0), force, of_error)
        return _At(total(value), gradient, matrix)

    def stepped(
        at: _At, damping: jax.Array, x: jax.Array, blocks: Blocks, span: Any = np.inf
    ) -> tuple[jax.Array, jax.Array]:
        """A step between the bounds, and what is to be gained by it."""
        size = blocks.totals(jnp.stack([at.matrix[i, i] for i in range(len(x))]))
        step = jnp.clip(blocks.step(at.matrix, at.gradient, damping * size, x), -span, span)
        gain = -jnp.sum(at.gradient * step, 0) - jnp.sum(step * product(at.matrix, step), 0) / 2
        return step, blocks.total(gain)

    def settled(point: list[jax.Array]) -> list[jax.Array]:
        """The point with the best linear coefficients."""
        x = jnp.stack([point[i] for i in linear])
        step, gain = stepped(near(point, linear), jnp.zeros_like(x), x, of_linear)
        chosen = dict(zip(linear, jnp.where(gain >= 0, x + step, x), strict=True))
        # The others stay the same arrays, so that what depends on them alone is not computed again.
        return [chosen.get(i, old) for i, old in enumerate(point)]

    def advance(state: _State) -> _State:
        point = list(state.trial)
        point = settled(point) if linear else point
        new = near(point, range(count))
        little = tolerance * state.at.value + tiny
        nothing_to_gain = jnp.abs(state.predicted) <= little  # the ratio of gains is then one of rounding
        better = new.value <= state.at.value + jnp.where(nothing_to_gain, little, 0)  # not for NaN
        done = state.converged | state.stuck
        take = better & ~done
        ratio = (state.at.value - new.value) / jnp.where(state.predicted > 0, state.predicted, 1)
        ease = eased(ratio, nothing_to_gain)
        damping, growth = damped(state.damping, state.growth, better, ease, LEAST)
        x = jnp.where(take, jnp.stack(point), state.x)
        at = jax.tree.map(lambda new, old: jnp.where(take, new, old), new, state.at)
        each = jnp.broadcast_to(damping, x.shape)
        each = jnp.where(jnp.asarray(form.linear)[:, None, None], 1e-12, each)
        widest = jnp.where(blocks.multiplied(x), FACTOR * jnp.abs(x), span)
        step, predicted = stepped(at, each, x, blocks, widest)
        small = (damping <= jnp.where(better, SMALL, LITTLE)) & jnp.isfinite(at.value)
        enough = small & (jnp.abs(predicted) <= tolerance * at.value + tiny)
        stuck = (damping > 1e11) | ~jnp.isfinite(predicted)
        return _State(
            x=x,
            at=at,
            damping=jnp.where(done, state.damping, damping),
            growth=jnp.where(done, state.growth, growth),
            trial=blocks.moved(x, step),
            predicted=predicted,
            enough=enough,
            converged=state.converged | (~done & state.enough),
            stuck=state.stuck | (~done & stuck),
            steps=jnp.where(done, state.steps, state.turn),
            turn=state.turn + 1,
        )

    def unfinished(state: _State) -> jax.Array:
        going: jax.Array = (state.turn < most) & jnp.any(~(state.converged | state.stuck))
        return going

    tiny = total(rounding_of(objective, measured, weight))
    start = jnp.clip(jnp.where(jnp.asarray(form.linear)[:, None, None], 0, start), *bounds)
    nothing = jnp.zeros_like(total(jnp.zeros(shape, start.dtype)))
    state = _State(
        x=start,
        at=_At(nothing + jnp.inf, jnp.zeros_like(start), jnp.zeros((count, *start.shape), start.dtype)),
        damping=nothing + damping,
        growth=nothing + 2,
        trial=start,
        predicted=nothing,
        enough=nothing > 1,
        converged=nothing > 1,
        stuck=nothing > 1,
        steps=jnp.zeros(nothing.shape, jnp.int32),
        turn=jnp.zeros((), jnp.int32),
    )
    state = lax.while_loop(unfinished, once(advance), state)
    return Found(state.x, state.at.value, state.converged, state.steps, state.damping)
