"""The search for the best mixtures of a batch of problems, and what there is to say of each answer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlaws.law import Law, Scalar, Var, Vector, record, var
from jaxlaws.numerics import log
from jaxlaws.optimize.batches import batched
from jaxlaws.optimize.interior_point import Point, Problem, solve

__all__ = ["Kind", "Mixture", "Parts", "inside"]


@record
class Mixture:
    """The answer of [`optimize_mixture`][jaxlaws.optimize_mixture]; every field has the batch axes first."""

    proportions: Vector = var("the best proportions", shape="domain")
    loss: Scalar = var("their weighted loss, or the worst of loss - target", unit="as the outputs of the law")
    losses: Vector = var("the outputs of the law there", unit="as the outputs of the law", shape="output")
    penalty: Scalar = var("strength times the divergence from the prior", unit="as the outputs of the law")
    gap: Scalar = var(
        "an upper bound on loss + penalty, less that of the best mixture", unit="as the outputs of the law"
    )
    lower_multipliers: Vector = var("by how much the minimum changes with each lower bound", shape="domain")
    upper_multipliers: Vector = var("by how much the minimum changes with each upper bound", shape="domain")
    sum_multipliers: Vector = var("by how much the minimum changes with each bound on a sum", shape="sum")
    output_weights: Vector = var(
        "weights of the outputs: those given, or those of the outputs that are worst", shape="output"
    )
    at_lower: Vector = var("whether a proportion is at its lower bound", shape="domain")
    at_upper: Vector = var("whether a proportion is at its upper bound", shape="domain")
    extrapolated: Any = var(
        "whether a proportion, or another input, lies outside the range that the group was fitted on: a record as the "
        "law takes it",
    )
    lowest: Vector = var("least value among mixtures that are nearly as good; NaN without within", shape="domain")
    highest: Vector = var("largest value among mixtures that are nearly as good; NaN without within", shape="domain")
    unconstrained: Vector = var("the best proportions without any constraints; NaN if not asked for", shape="domain")
    unconstrained_loss: Scalar = var("their loss; NaN if not asked for", unit="as the outputs of the law")
    epochs: Vector = var("passes over the tokens available; NaN without a budget", shape="domain")
    steps: Scalar = var("steps of the search")
    converged: Scalar = var("whether the search ended at an optimum")
    feasible: Scalar = var("whether all constraints hold")
    conflicting: Vector = var("whether a sum's bounds contradict those of others or of the domains", shape="sum")


class Kind(NamedTuple):
    """What of the options is used."""

    worst: bool
    penalised: bool


class Parts:
    """The functions of one problem that the search is made of; p are the proportions, d the data of the problem."""

    def __init__(self, law: Law, simplex: Var, kind: Kind):
        self.law, self.simplex, self.kind = law, simplex, kind
        self.domains = law.sizes[simplex.shape[0]]

    def losses(self, p: jax.Array, d: Any) -> jax.Array:
        """The outputs of the law."""
        x = dataclasses.replace(d["inputs"], **{self.simplex.name: p})
        found: jax.Array = jnp.atleast_1d(self.law.fn(d["coefs"], x))
        return found

    def excess(self, p: jax.Array, d: Any) -> jax.Array:
        """The outputs less their targets, as far as they count: beside a prior of infinite strength, not at all."""
        counted: jax.Array = d["counted"] * (self.losses(p, d) - d["targets"])
        return counted

    def penalty(self, p: jax.Array, d: Any) -> jax.Array:
        """The divergence from the prior."""
        if not self.kind.penalised:
            return jnp.zeros((), p.dtype)
        prior = d["prior"]
        safe = jnp.where(p > 0, p, 1)
        found: jax.Array = d["strength"] * jnp.sum(p * (log(safe) - log(jnp.where(prior > 0, prior, 1))))
        return found

    def value(self, p: jax.Array, d: Any) -> jax.Array:
        """The loss, or the worst of them, and the penalty."""
        excess = self.excess(p, d)
        return (jnp.max(excess) if self.kind.worst else jnp.dot(d["weights"], excess)) + self.penalty(p, d)

    def weighted(self, p: jax.Array, d: Any) -> jax.Array:
        """The weighted sum of the losses."""
        return jnp.dot(d["weights"], self.excess(p, d))

    def duality(
        self, slope: jax.Array, p: jax.Array, y: jax.Array, z: jax.Array, d: Any, low: jax.Array, high: jax.Array
    ) -> jax.Array:
        """Lagrange's bound for a convex function with this slope: by how much less than here it can be at most."""
        over, under = _prices(z, d)
        left = _left(over, under, p, d) + y * (jnp.sum(p) - 1)  # of which rounding leaves something
        return jnp.sum(_least_change(slope + d["sums"].T @ (over - under) - y, p, low, high)) - left

    def objective(self, x: jax.Array, d: Any) -> jax.Array:
        """What is minimised: over the proportions, and in search of the least worst output over that as well."""
        if self.kind.worst:
            return x[-1] + self.penalty(x[:-1], d)
        return self.weighted(x, d) + self.penalty(x, d)

    def constraints(self, x: jax.Array, d: Any) -> jax.Array:
        """Bounds on sums, and that no output is above the worst one."""
        p = x[:-1] if self.kind.worst else x
        total = d["sums"] @ p
        # A bound that is none is one that holds by far, as is that from below of a sum that is given.
        over = jnp.where(jnp.isfinite(d["sum_upper"]), total - d["sum_upper"], -1)
        under = jnp.where(jnp.isfinite(d["sum_lower"]) & ~_given(d), d["sum_lower"] - total, -1)
        worst = self.excess(p, d) - x[-1] if self.kind.worst else jnp.zeros(0, x.dtype)
        return jnp.concatenate([over, under, worst])

    def conflicting(self, data: Any) -> jax.Array:
        """The sums whose bounds would have to give way: those with a price where as little as can be is amiss."""
        start, low, high, _ = self.box(data)
        k, m = start.shape[0], data["sum_upper"].shape[0]

        def amiss(x: jax.Array, d: Any) -> jax.Array:
            return jnp.sum(x[k:])

        def constraints(x: jax.Array, d: Any) -> jax.Array:
            total = d["sums"] @ x[:k]
            sides = (total - d["sum_upper"], d["sum_lower"] - total)
            return jnp.concatenate([jnp.where(jnp.isfinite(side), side - x[k:], -1) for side in sides])

        nothing, anything = jnp.zeros((m, start.shape[1]), start.dtype), jnp.full((m, start.shape[1]), jnp.inf)
        problem = Problem(amiss, constraints, (True,) * k + (False,) * m)
        start, low, high = (jnp.vstack(pair) for pair in ((start, nothing + 1), (low, nothing), (high, anything)))
        point = solve(problem, data, start, low, high)
        near = _near(start.dtype)
        over, under = point.z[:m], point.z[m:]
        price = jnp.where(_given(data), jnp.abs(over - under), over + under)
        found: jax.Array = (price > near**0.5) & (jnp.sum(point.x[k:], 0) > near)
        return found

    def optimum(self, data: Any) -> Mixture:
        """An optimum of each problem: the best where it is convex."""
        _, low, high, _ = self.box(data)
        return self.optimum_between(data, low, high)

    def optimum_between(self, data: Any, low: jax.Array, high: jax.Array) -> Mixture:
        """An optimum of each problem between bounds that may be narrower than its own."""
        start, fixed = inside(low, high)
        low, high = jnp.where(fixed, start, low), jnp.where(fixed, start, high)
        point = self.solve(self.objective, self.constraints, data, start, low, high)
        found: Mixture = batched(self._certified)(point._asdict(), data, low, high, fixed)
        return found

    def box(self, data: Any) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Where the search starts, its bounds, and the proportions that cannot move."""
        lower, upper = data["lower"], data["upper"]
        if self.kind.penalised:  # what the prior excludes costs infinitely much
            upper = jnp.where((data["prior"] <= 0) & (data["strength"] > 0), lower, upper)
        start, fixed = inside(lower, upper)
        return start, jnp.where(fixed, start, lower), jnp.where(fixed, start, upper), fixed

    def solve(
        self,
        objective: Callable[[jax.Array, Any], jax.Array],
        constraints: Callable[[jax.Array, Any], jax.Array],
        data: Any,
        start: jax.Array,
        low: jax.Array,
        high: jax.Array,
        slack: Any = 0.1,
    ) -> Point:
        """A search over the proportions, and for the least worst output over that as well."""
        on_simplex = (True,) * start.shape[0] + (False,) * self.kind.worst
        if self.kind.worst:
            worst = jnp.max(batched(self.excess)(start, data), 0)
            none = jnp.full_like(worst, jnp.inf)
            start, low, high = (jnp.vstack([a, b]) for a, b in ((start, worst + slack), (low, -none), (high, none)))
        values = jax.eval_shape(batched(constraints), start, data)
        slack = jnp.broadcast_to(slack, values.shape).astype(values.dtype)
        m = data["sum_upper"].shape[0]
        slack = slack.at[:m].set(jnp.where(_given(data), 0, slack[:m]))  # equations
        return solve(Problem(objective, constraints, on_simplex), data, start, low, high, slack)

    def with_ranges(self, data: Any, best: Mixture) -> Mixture:
        """Each proportion made as small and as large as can be, as a problem of its own."""
        middle, low, high, _ = self.box(data)
        k = middle.shape[0]
        room = data["counted"] * data["within"] * jnp.abs(best.loss)
        size = jnp.max(jnp.abs(best.losses), 0)
        value = data["counted"] * best.loss + best.penalty
        data = {**data, "limit": value + room, "size": size}
        # From strictly between the bounds, with half of the room left.
        costs = batched(self.value)(middle, data) - value
        share = jnp.clip(0.5 * room / jnp.maximum(costs, np.finfo(room.dtype).tiny), 0, 0.5)
        start = share * middle + (1 - share) * best.proportions

        def objective(x: jax.Array, d: Any) -> jax.Array:
            return jnp.dot(d["direction"], x[:k])

        def constraints(x: jax.Array, d: Any) -> jax.Array:
            near = (self.objective(x, d) - d["limit"]) / d["size"]
            return jnp.append(self.constraints(x, d), near)

        def least(direction: jax.Array) -> jax.Array:
            d = {**data, "direction": jnp.broadcast_to(direction[:, None], start.shape)}
            point = self.solve(objective, constraints, d, start, low, high, 0.1 * room / size)
            known = direction @ best.proportions
            value = jnp.where(data["counted"] == 0, known, jnp.minimum(direction @ point.x[:k], known))
            return jnp.where((point.converged | (data["counted"] == 0)) & best.converged, value, jnp.nan)

        axes = jnp.eye(k, dtype=start.dtype)
        found = lax.map(least, jnp.concatenate([axes, -axes]))
        return dataclasses.replace(best, lowest=found[:k], highest=-found[k:])

    def _certified(self, point: Any, d: Any, lower: jax.Array, upper: jax.Array, fixed: jax.Array) -> Mixture:
        """What there is to say of one problem's answer."""
        k, m = lower.shape[0], d["sum_lower"].shape[0]
        p, below, above = (point[name][:k] for name in ("x", "below", "above"))
        (over, under), by_output = _prices(point["z"], d), point["z"][2 * m :]
        weights = by_output / jnp.maximum(jnp.sum(by_output), 1e-30) if self.kind.worst else d["weights"]
        near = _near(p.dtype)
        at_lower, at_upper = (p - lower <= near) & (below > 0), (upper - p <= near) & (above > 0)
        # To the bounds themselves; that could break bounds on sums by as little, and a penalty has no slope at 0.
        if not m and not self.kind.penalised:
            p = jnp.where(at_lower, lower, jnp.where(at_upper, upper, p))
            free = jnp.argmax(jnp.where(fixed, -1, jnp.minimum(p - lower, upper - p)))
            p = p.at[free].add(jnp.where(fixed[free], 0, 1 - jnp.sum(p)))

        def whole(p: jax.Array) -> jax.Array:
            return jnp.dot(weights, self.excess(p, d))

        losses, excess = self.losses(p, d), self.excess(p, d)
        loss = jnp.max(losses - d["targets"]) if self.kind.worst else jnp.dot(weights, losses)
        total = d["sums"] @ p
        # Lagrange's bound: the minimum of what is minimised plus multipliers times constraints, without these.
        slope = jax.grad(self.penalty)(p, d) + d["sums"].T @ (over - under) - point["y"]
        law_slope = jax.grad(whole)(p)
        least = _least_change(slope + law_slope, p, lower, upper)
        left = point["y"] * (jnp.sum(p) - 1)
        left += _left(over, under, p, d) + (jnp.max(excess) - jnp.dot(weights, excess) if self.kind.worst else 0)
        known = jnp.ones((), bool)
        if self.law.curvature == "separable":
            bend = jnp.diag(jax.hessian(whole)(p))
            ends = [self._ends(whole, p, end) + slope * (end - p) for end in (lower, upper)]
            least = jnp.where(bend < 0, jnp.minimum(functools.reduce(jnp.minimum, ends), 0), least)
        elif self.law.curvature == "convex":
            known = jnp.all(weights >= 0)
        else:
            known = jnp.zeros((), bool)
        known = (known | (d["counted"] == 0)) & (d["strength"] >= 0)
        gap = jnp.where(known, left - jnp.sum(least), jnp.inf)
        rounding = 4 * np.finfo(p.dtype).eps * (jnp.abs(loss) + jnp.sum(jnp.abs(weights * losses)))
        short = jnp.max(jnp.concatenate([total - d["sum_upper"], d["sum_lower"] - total]), initial=-jnp.inf)
        feasible = (
            (short <= near) & (jnp.abs(jnp.sum(p) - 1) <= near) & jnp.all((p >= lower - near) & (p <= upper + near))
        ) & jnp.all((p >= d["lower"] - near) & (p <= d["upper"] + near))  # which may exclude each other
        rest = law_slope + slope  # what holds those that cannot move
        return Mixture(
            proportions=p,
            loss=loss,
            losses=losses,
            penalty=self.penalty(p, d),
            gap=jnp.where(feasible & ~jnp.isnan(gap + rounding), jnp.maximum(gap, 0) + rounding, jnp.inf),
            lower_multipliers=jnp.where(fixed, jnp.maximum(rest, 0), below),
            upper_multipliers=jnp.where(fixed, jnp.minimum(rest, 0), -above),
            sum_multipliers=(under - over) / d["sum_scale"],
            output_weights=weights,
            at_lower=at_lower | (fixed & (p - d["lower"] <= near)),
            at_upper=at_upper | (fixed & (d["upper"] - p <= near)),
            extrapolated=jnp.zeros((), bool),  # which is found out afterwards, of all problems at once
            lowest=jnp.full_like(p, jnp.nan),
            highest=jnp.full_like(p, jnp.nan),
            unconstrained=jnp.full_like(p, jnp.nan),
            unconstrained_loss=jnp.full_like(loss, jnp.nan),
            epochs=p * d["budget"] / d["available"],
            steps=point["steps"],
            converged=point["converged"] & feasible,
            feasible=feasible,
            conflicting=jnp.zeros(m, bool),
        )

    @staticmethod
    def _ends(whole: Callable[[jax.Array], jax.Array], p: jax.Array, end: jax.Array) -> jax.Array:
        """How the law changes when one proportion alone goes to the end of its interval."""
        moved = jnp.where(jnp.eye(p.shape[0], dtype=bool), end[None], p[None])
        return jax.vmap(whole)(moved) - whole(p)


def _near(dtype: Any) -> float:
    """By how much constraints may be missed."""
    return 1e-9 if dtype == np.float64 else 1e-5


def _prices(z: jax.Array, d: Any) -> tuple[jax.Array, jax.Array]:
    """The multipliers of the upper and lower bounds of sums, 0 for those that are none."""
    m = d["sum_lower"].shape[0]
    over = jnp.where(jnp.isfinite(d["sum_upper"]), z[:m], 0)
    return over, jnp.where(jnp.isfinite(d["sum_lower"]) & ~_given(d), z[m : 2 * m], 0)


def _left(over: jax.Array, under: jax.Array, p: jax.Array, d: Any) -> jax.Array:
    """What the bounds on sums leave, at their prices."""
    total = d["sums"] @ p
    left = jnp.where(over != 0, over * (d["sum_upper"] - total), 0)
    return jnp.sum(left + jnp.where(under != 0, under * (total - d["sum_lower"]), 0))


def _given(d: Any) -> jax.Array:
    """Which sums have but one value that they may have."""
    found: jax.Array = jnp.abs(d["sum_upper"] - d["sum_lower"]) <= 8 * np.finfo(d["sum_upper"].dtype).eps
    return found


def inside(lower: jax.Array, upper: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Proportions strictly between the bounds, and which of them cannot be anything else."""
    width = upper - lower
    room = 1 - jnp.sum(lower, 0)
    near = 4 * np.finfo(lower.dtype).eps
    fixed = (width <= near) | (room <= near) | (jnp.sum(upper, 0) - 1 <= near)
    total = jnp.sum(width, 0)
    return lower + width * jnp.clip(jnp.where(total > 0, room / jnp.where(total > 0, total, 1), 0), 0, 1), fixed


def _least_change(slope: jax.Array, p: jax.Array, lower: jax.Array, upper: jax.Array) -> jax.Array:
    """The least value of slope * (t - p) for t between the bounds."""
    return jnp.minimum(slope * (lower - p), slope * (upper - p))
