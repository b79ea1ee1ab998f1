"""The best of the local optima, for sums of functions of one unknown that are each convex or concave.

Branch and bound: between the ends of an interval, a concave function is nowhere below the line that joins its values
there. With such lines for the concave functions, problems are convex, and their optima bound the best there is from
below. Intervals are cut where a line is too low, until no part can hold anything better than what is known.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlaws.optimize.batches import batched, in_blocks
from jaxlaws.optimize.mixture_parts import Mixture, Parts, inside

__all__ = ["BRANCHES", "best_of_all", "doubtful", "improved"]

BRANCHES = 64  # problems that are looked at together
CUTS = 40  # at most


class _Parting(NamedTuple):
    """The parts of the space that have been looked at, and the best mixture found.

    Attributes:
        low: Lower bounds of each part, [parts, domains, batch].
        high: Upper bounds of each part, [parts, domains, batch].
        middle: Where the lines are least in each part, [parts, domains, batch].
        bound: No mixture in a part is better than that, [parts, batch].
        best: The best mixture, [domains, batch].
        value: What it costs, [batch].
        cuts: The number of cuts, the same for all.
    """

    low: jax.Array
    high: jax.Array
    middle: jax.Array
    bound: jax.Array
    best: jax.Array
    value: jax.Array
    cuts: jax.Array


def best_of_all(parts: Parts, data: Any, found: Mixture) -> Mixture:
    """The answers, or better ones where there are, with gaps that are closed as far as the cuts go."""
    order = jnp.argsort(~doubtful(found))  # those that need it together
    back = jnp.argsort(order)

    def block(data: Any, found: Mixture) -> Mixture:
        needed = jnp.any(doubtful(found))
        result: Mixture = lax.cond(needed, lambda: improved(parts, data, found), lambda: found)
        return result

    result: Mixture = in_blocks(block, jax.tree.map(lambda x: x[..., order], (data, found)), BRANCHES)
    result = jax.tree.map(lambda x: x[..., back], result)
    return result


def doubtful(found: Mixture) -> jax.Array:
    """Whether there may be something better by more than rounding."""
    result: jax.Array = found.feasible & (found.gap < math.inf) & (found.gap > _tolerance(found))
    return result


def _tolerance(found: Mixture) -> jax.Array:
    result: jax.Array = np.finfo(found.loss.dtype).eps ** 0.625 * (1 + abs(found.loss))
    return result


def improved(parts: Parts, data: Any, found: Mixture) -> Mixture:
    """The same for a few problems, all of which are looked at."""
    _, lower, upper, _ = parts.box(data)
    seen = _look(parts, *lax.stop_gradient((data, found, lower, upper)))
    # From there to the optimum that is near, with the multipliers that it has there.
    concave = _concave(parts, seen.best, data)
    room = jnp.minimum(seen.best - lower, upper - seen.best)
    at_end = concave & (room <= 1e-7 * (upper - lower))
    end = jnp.where(seen.best - lower < upper - seen.best, lower, upper)
    low = jnp.where(at_end, end, jnp.where(concave, seen.best - 0.5 * room, lower))
    high = jnp.where(at_end, end, jnp.where(concave, seen.best + 0.5 * room, upper))
    near = parts.optimum_between(data, low, high)
    gain = found.loss + found.penalty - near.loss - near.penalty
    doubt = doubtful(found)
    better = doubt & near.converged & ((gain > _tolerance(found)) | ~found.converged)
    result: Mixture = jax.tree.map(lambda new, old: jnp.where(better, new, old), near, found)
    rounding = 16 * np.finfo(gain.dtype).eps * (1 + jnp.abs(result.loss))
    gap = jnp.maximum(result.loss + result.penalty - jnp.min(seen.bound, 0), 0) + rounding
    gap = jnp.where(better, gap, jnp.where(doubt, jnp.minimum(gap, found.gap), found.gap))
    return dataclasses.replace(result, gap=gap)


def _concave(parts: Parts, p: jax.Array, data: Any) -> jax.Array:
    """Which functions are concave."""

    def bends(p: jax.Array, d: Any) -> jax.Array:
        return jnp.diag(jax.hessian(parts.weighted)(p, d)) < 0

    result: jax.Array = batched(bends)(p, data)
    return result


def _change(parts: Parts, p: jax.Array, at: jax.Array, data: Any) -> jax.Array:
    """How each function changes when its unknown goes from one place to another."""

    def change(p: jax.Array, at: jax.Array, d: Any) -> jax.Array:
        moved = jnp.where(jnp.eye(p.shape[0], dtype=bool), at[None], p[None])
        return jax.vmap(lambda x: parts.weighted(x, d))(moved) - parts.weighted(p, d)

    result: jax.Array = batched(change)(p, at, data)
    return result


def _look(parts: Parts, data: Any, found: Mixture, lower: jax.Array, upper: jax.Array) -> _Parting:
    """Cuts the space until what is best is known."""
    concave = _concave(parts, found.proportions, data)
    value = found.loss + found.penalty
    doubt, enough = doubtful(found), 0.5 * _tolerance(found)
    number = jnp.arange(CUTS + 1)[:, None]

    def relaxed(x: jax.Array, d: Any) -> jax.Array:
        """What is minimised, with lines in place of concave functions."""
        others = jnp.where(d["concave"], d["low"], x)
        return parts.weighted(others, d) + jnp.dot(d["line"], x - d["low"]) + parts.penalty(x, d)

    def bound(x: jax.Array, y: jax.Array, z: jax.Array, d: Any, low: jax.Array, high: jax.Array) -> jax.Array:
        return relaxed(x, d) + parts.duality(jax.grad(relaxed)(x, d), x, y, z, d, low, high)

    def look(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """A bound for a part, where the lines are least, and what that costs if it is allowed."""
        low, high = part
        line = jnp.where(concave, _change(parts, low, high, data) / _some(high - low), 0)
        d = {**data, "concave": concave, "low": low, "line": line}
        start, fixed = inside(low, high)
        inner, outer = jnp.where(fixed, start, low), jnp.where(fixed, start, high)
        point = parts.solve(relaxed, parts.constraints, d, start, inner, outer)
        least = batched(bound)(point.x, point.y, point.z, d, inner, outer)
        empty = (jnp.sum(low, 0) > 1 + 1e-12) | (jnp.sum(high, 0) < 1 - 1e-12)
        least = jnp.where(empty, jnp.inf, jnp.where(jnp.isnan(least), -jnp.inf, least))
        cost = jnp.where(point.converged & ~empty, batched(parts.value)(point.x, data), jnp.inf)
        return least, jnp.clip(point.x, low, high), cost

    def unfinished(seen: _Parting) -> jax.Array:
        return (seen.cuts < CUTS) & jnp.any(doubt & (jnp.min(seen.bound, 0) < seen.value - enough))

    def cut(seen: _Parting) -> _Parting:
        which = jnp.argmin(seen.bound, 0)[None]
        low, high, middle = (jnp.take_along_axis(x, which[:, None], 0)[0] for x in (seen.low, seen.high, seen.middle))
        # Where the line is too low by most, at the place that it has led to.
        line = _change(parts, low, high, data) * (middle - low) / _some(high - low)
        amiss = jnp.where(concave & (high > low), _change(parts, low, middle, data) - line, -jnp.inf)
        here = jnp.arange(low.shape[0])[:, None] == jnp.argmax(amiss, 0)
        at = jnp.where((middle > low) & (middle < high), middle, 0.5 * (low + high))
        lows, highs = jnp.stack([low, jnp.where(here, at, low)]), jnp.stack([jnp.where(here, at, high), high])
        bounds, middles, costs = lax.map(look, (lows, highs))
        least = jnp.argmin(costs, 0)[None]
        best = jnp.take_along_axis(middles, least[:, None], 0)[0]
        cost = jnp.take_along_axis(costs, least, 0)[0]

        def put(old: jax.Array, new: jax.Array) -> jax.Array:
            """One part in the place of the one that was cut, and the other in a new one."""
            first, second = (
                jnp.expand_dims(x, tuple(range(1, old.ndim - 1))) for x in (number == which, number == seen.cuts + 1)
            )
            return jnp.where(second, new[1], jnp.where(first, new[0], old))

        return _Parting(
            low=put(seen.low, lows),
            high=put(seen.high, highs),
            middle=put(seen.middle, middles),
            bound=put(seen.bound, jnp.maximum(bounds, jnp.min(seen.bound, 0))),
            best=jnp.where(cost < seen.value, best, seen.best),
            value=jnp.minimum(cost, seen.value),
            cuts=seen.cuts + 1,
        )

    whole = (number == 0)[:, None]  # one part, with what is known of it
    low, high, middle = (jnp.where(whole, x, 0.0) for x in (lower, upper, found.proportions))
    bound_of_all = jnp.where(number == 0, value - found.gap, jnp.inf)
    start = _Parting(low, high, middle, bound_of_all, found.proportions, value, jnp.zeros((), jnp.int32))
    return lax.while_loop(unfinished, cut, start)


def _some(width: jax.Array) -> jax.Array:
    return jnp.where(width > 0, width, 1)
