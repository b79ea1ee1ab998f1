"""The mixture of domains that minimises the loss, with a bound on how far from the best it is."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlaws.arguments import arguments, beyond_setting, broadcast_shape, check_law, number, setting
from jaxlaws.evaluation import core_ndims_of
from jaxlaws.law import Law, Scalar, Var, Vector, record, var, variables
from jaxlaws.numerics import log
from jaxlaws.optimize.interior_point import Problem, solve
from jaxlaws.optimize.pieces import in_pieces

__all__ = ["Mixture", "optimize_mixture"]


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
    epochs: Vector = var("passes over the tokens available; NaN without a budget", shape="domain")
    steps: Scalar = var("steps of the search")
    converged: Scalar = var("whether the search ended at an optimum")
    feasible: Scalar = var("whether all constraints hold")


def optimize_mixture(
    law: Law,
    group: Any,
    *,
    weights: Any = None,
    targets: Any = None,
    lower: Any = 0.0,
    upper: Any = 1.0,
    available: Any = None,
    budget: Any = None,
    max_epochs: Any = 1.0,
    sums: Any = None,
    sum_lower: Any = -math.inf,
    sum_upper: Any = math.inf,
    prior: Any = None,
    strength: Any = 0.0,
    **inputs: Any,
) -> Mixture:
    """The proportions that minimise the loss of a law, for thousands of problems at once.

    All arguments broadcast along leading axes: groups and coefficients, weights, bounds, budgets, priors. The search
    is done in float64 unless arrays of float32 are given.

    Args:
        law: A law with one input whose elements sum to 1.
        group: Name of a group, coefficients, or one name or id per problem.
        weights: Weights of the outputs; by default their mean is minimised.
        targets: Minimise the worst of output - target instead; 0 for the worst output.
        lower: Least proportion of each domain.
        upper: Largest proportion of each domain.
        available: Tokens there are of each domain; needs `budget`.
        budget: Tokens that are trained on in all; with `available`, no domain is used for more than `max_epochs`.
        max_epochs: Passes over the tokens of a domain, at most; a number, or one for each.
        sums: For bounds on sums of proportions, a matrix with a row per sum and a column per domain.
        sum_lower: Least value of each sum.
        sum_upper: Largest value of each sum.
        prior: Proportions to stay close to: `strength` times the Kullback-Leibler divergence from them, in nat, is
            added to what is minimised.
        strength: See `prior`, in units of the loss.
        **inputs: The other inputs of the law, by name.

    Returns:
        A record, whose `gap` says how far the answer can be from the best there is: 0 or a little more for a convex
        problem, infinity where nothing is known. Look at `converged` and `feasible`, which are false where the search
        did not end or where constraints contradict each other.

    Raises:
        ValueError: For shapes that do not fit, and for bounds that leave no mixture.

    Example:
        >>> import jaxlaws as jl
        >>> best = jl.optimize_mixture(jl.laws["domain_mixture"], "410M", upper=0.5)
        >>> print(best.proportions.round(4))
        [0.0954 0.0448 0.5    0.1574 0.2024]
        >>> bool(best.converged), bool(best.gap < 1e-10)
        (True, True)
    """
    simplex = _simplex_input(law, inputs)
    if (available is None) != (budget is None):
        raise TypeError(f"{law.name}: give available and budget together")
    if weights is not None and targets is not None:
        raise TypeError(f"{law.name}: give weights or targets, not both")
    k = law.sizes[simplex.shape[0]]
    n = law.sizes[law.output_shape[0]] if law.output_shape else 1
    m = 0 if sums is None else np.shape(sums)[-2] if np.ndim(sums) > 1 else 1
    options = {
        "weights": ([1 / n] * n if weights is None else weights, (n,)),
        "targets": (0.0 if targets is None else targets, (n,)),
        "lower": (lower, (k,)),
        "upper": (upper, (k,)),
        "available": (math.inf if available is None else available, (k,)),
        "budget": (1.0 if budget is None else budget, ()),
        "max_epochs": (max_epochs, (k,)),
        "sums": (0.0 if sums is None else sums, (m, k)),
        "sum_lower": (sum_lower, (m,)),
        "sum_upper": (sum_upper, (m,)),
        "prior": (1 / k if prior is None else prior, (k,)),
        "strength": (strength, ()),
    }
    values = {name: _filled(law, name, number(value, name), core) for name, (value, core) in options.items()}
    placeholder = np.zeros(
        k, np.float32 if _single(group, inputs, [value for value, _ in options.values()]) else np.float64
    )
    arrays, dtype, shape = arguments(law, group, {**inputs, simplex.name: placeholder}, {}, None)
    batches = {name: array.shape[: array.ndim - len(options[name][1])] for name, array in values.items()}
    shape = broadcast_shape(law, {"inputs": shape, **batches})
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((arrays, values)))
    if not traced:
        _check_bounds(law, {name: np.asarray(value) for name, value in values.items()})
    switched = beyond_setting(dtype)
    with setting(dtype):
        values = {name: value.astype(dtype) for name, value in values.items()}
        kind = _Kind(targets is not None, prior is not None, budget is not None)
        search = functools.partial(_search, law, simplex, kind)
        core_ndims = core_ndims_of(arrays), {name: len(core) for name, (_, core) in options.items()}
        found: Mixture = (
            search(shape, arrays, values) if traced else in_pieces(search, shape, (arrays, values), core_ndims, dtype)
        )
        return jax.tree.map(np.asarray, found) if switched else found  # JAX at 32 bits cannot go on with float64


class _Kind(NamedTuple):
    """What of the options is used."""

    worst: bool
    penalised: bool
    budgeted: bool


def _simplex_input(law: Law, inputs: Any) -> Var:
    check_law(law)
    for v in variables(law.inputs):
        if v.total == 1:
            if v.name in inputs:
                raise TypeError(f"{law.name}: {v.name} is what is searched for; bound it with lower= and upper=")
            return v
    raise TypeError(f"{law.name} has no input whose elements sum to 1")


def _filled(law: Law, name: str, array: Any, core: tuple[int, ...]) -> Any:
    """An option with its own axes in full: one number stands for all."""
    if not array.ndim:
        return jnp.broadcast_to(array, core) if isinstance(array, jax.Array) else np.broadcast_to(array, core)
    if array.shape[array.ndim - len(core) :] != core:
        raise ValueError(f"{law.name}: {name} has shape {array.shape}; it must end in {core}")
    return array


def _single(group: Any, inputs: Any, options: Any) -> bool:
    """Whether arrays of float32 are given, and none of float64."""
    given = [*jax.tree.leaves(inputs), *([] if isinstance(group, str) else jax.tree.leaves(group)), *options]
    own = {x.dtype for x in given if isinstance(x, (jax.Array, np.ndarray)) and x.dtype.kind == "f"}
    return np.dtype(np.float32) in own and np.dtype(np.float64) not in own


def _check_bounds(law: Law, values: dict[str, np.ndarray]) -> None:
    """A ValueError for bounds that leave no mixture, which says which they are, and for what cannot be negative."""
    for name in ("available", "max_epochs", "prior", "strength"):
        if not (values[name] >= 0).all():
            raise ValueError(f"{law.name}: {name} must not be negative or NaN")
    if not (values["budget"] > 0).all():
        raise ValueError(f"{law.name}: budget must be positive")
    low, high = np.broadcast_arrays(*_bounds(values, np))
    problems = {
        "the lower bound of domain {j} is above its upper bound": (low > high).any(-1),
        "the lower bounds sum to more than 1": low.sum(-1) > 1 + 1e-9,
        "the upper bounds, with the tokens available, sum to less than 1": high.sum(-1) < 1 - 1e-9,
        "a bound is NaN": (np.isnan(low) | np.isnan(high)).any(-1),
    }
    for text, wrong in problems.items():
        if wrong.any():
            where = np.unravel_index(np.argmax(wrong), wrong.shape)
            j = int(np.argmax(low[where] > high[where])) + 1
            which = f" in problem {tuple(map(int, where))}" if where else ""
            bounds = f"lower {low[where]}, upper {high[where]}"
            raise ValueError(f"{law.name}: no mixture{which}: {text.format(j=j)}; {bounds}")


def _bounds(values: Any, xp: Any) -> tuple[Any, Any]:
    """Bounds of the proportions, those by the tokens available included."""
    share = values["max_epochs"] * values["available"] / values["budget"][..., None]
    return values["lower"], xp.minimum(values["upper"], share)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _search(law: Law, simplex: Var, kind: _Kind, shape: tuple[int, ...], arrays: Any, values: Any) -> Mixture:
    coefs, ids, inputs, _ = arrays
    if ids is not None:
        coefs = jax.tree.map(lambda leaf: jnp.take(leaf, ids, axis=0, mode="fill"), coefs)

    def columns(array: Any, core: int) -> jax.Array:
        """The batch as one axis, the last."""
        array = jnp.broadcast_to(array, (*shape, *array.shape[array.ndim - core :]))
        return jnp.moveaxis(array.reshape(math.prod(shape), *array.shape[len(shape) :]), 0, -1)

    def records(values: Any) -> Any:
        return type(values)(**{v.name: columns(getattr(values, v.name), len(v.shape)) for v in variables(type(values))})

    lower, upper = _bounds(values, jnp)
    values = {**values, "lower": lower, "upper": upper}
    cores = {"budget": 0, "strength": 0, "sums": 2}
    data = {name: columns(value, cores.get(name, 1)) for name, value in values.items()}
    data |= {"coefs": records(coefs), "inputs": records(inputs)}
    parts = _Parts(law, simplex, kind)
    columns_found = _in_blocks(parts.optimum, data)
    found: Mixture = jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0).reshape(*shape, *x.shape[:-1]), columns_found)
    return found


BLOCK = 256  # problems that are solved together, at most: few wait for the one that takes longest
MATRICES = 1 << 15  # numbers in the matrices of a block, at most: they stay in the cache


def _in_blocks(fn: Callable[[Any], Any], data: Any) -> Any:
    """`fn(data)` along the last axis of all arrays, block by block."""
    k, count = data["lower"].shape
    block = min(BLOCK, 1 << max(1, MATRICES // k**2).bit_length() - 1)
    blocks = -(-count // block)
    if blocks <= 1:
        return fn(data)

    def cut(x: jax.Array) -> jax.Array:
        padding = jnp.broadcast_to(x[..., -1:], (*x.shape[:-1], blocks * block - count))
        return jnp.moveaxis(jnp.concatenate([x, padding], -1).reshape(*x.shape[:-1], blocks, block), -2, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], blocks * block)[..., :count]

    return jax.tree.map(join, lax.map(fn, jax.tree.map(cut, data)))


class _Parts:
    """The functions of one problem that the search is made of; p are the proportions, d the data of the problem."""

    def __init__(self, law: Law, simplex: Var, kind: _Kind):
        self.law, self.simplex, self.kind = law, simplex, kind

    def losses(self, p: jax.Array, d: Any) -> jax.Array:
        """The outputs of the law."""
        x = dataclasses.replace(d["inputs"], **{self.simplex.name: p})
        found: jax.Array = jnp.atleast_1d(self.law.fn(d["coefs"], x))
        return found

    def penalty(self, p: jax.Array, d: Any) -> jax.Array:
        """The divergence from the prior."""
        if not self.kind.penalised:
            return jnp.zeros((), p.dtype)
        prior = d["prior"]
        safe = jnp.where(p > 0, p, 1)
        found: jax.Array = d["strength"] * jnp.sum(p * (log(safe) - log(jnp.where(prior > 0, prior, 1))))
        return found

    def objective(self, x: jax.Array, d: Any) -> jax.Array:
        """What is minimised: over the proportions, and in search of the least worst output over that as well."""
        if self.kind.worst:
            return x[-1] + self.penalty(x[:-1], d)
        return jnp.dot(d["weights"], self.losses(x, d)) + self.penalty(x, d)

    def constraints(self, x: jax.Array, d: Any) -> jax.Array:
        """Bounds on sums, and that no output is above the worst one."""
        p = x[:-1] if self.kind.worst else x
        total = d["sums"] @ p
        # A bound that is none is one that holds by far.
        over = jnp.where(jnp.isfinite(d["sum_upper"]), total - d["sum_upper"], -1)
        under = jnp.where(jnp.isfinite(d["sum_lower"]), d["sum_lower"] - total, -1)
        worst = self.losses(p, d) - d["targets"] - x[-1] if self.kind.worst else jnp.zeros(0, x.dtype)
        return jnp.concatenate([over, under, worst])

    def optimum(self, data: Any) -> Mixture:
        """The answers to a batch of problems, whose axis is the last one."""
        batched = functools.partial(jax.vmap, in_axes=-1, out_axes=-1)
        lower, upper = data["lower"], data["upper"]
        if self.kind.penalised:  # what the prior excludes costs infinitely much
            upper = jnp.where((data["prior"] <= 0) & (data["strength"] > 0), lower, upper)
        k = lower.shape[0]
        start, fixed = _inside(lower, upper)
        low, high = jnp.where(fixed, start, lower), jnp.where(fixed, start, upper)
        x0 = start
        if self.kind.worst:
            worst = jnp.max(batched(self.losses)(start, data) - data["targets"], 0)
            none = jnp.full_like(worst, jnp.inf)
            x0, low, high = (jnp.vstack([a, b]) for a, b in ((start, worst + 0.1), (low, -none), (high, none)))
        on_simplex = (True,) * k + (False,) * self.kind.worst
        point = solve(Problem(self.objective, self.constraints, on_simplex), data, x0, low, high)
        return batched(self._answer)(point._asdict(), data, low[:k], high[:k], fixed)

    def _answer(self, point: Any, d: Any, lower: jax.Array, upper: jax.Array, fixed: jax.Array) -> Mixture:
        k, m = lower.shape[0], d["sum_lower"].shape[0]
        p, below, above = (point[name][:k] for name in ("x", "below", "above"))
        over, under, by_output = point["z"][:m], point["z"][m : 2 * m], point["z"][2 * m :]
        weights = by_output / jnp.maximum(jnp.sum(by_output), 1e-30) if self.kind.worst else d["weights"]
        near = 1e-9 if p.dtype == np.float64 else 1e-5
        at_lower, at_upper = (p - lower <= near) & (below > 0), (upper - p <= near) & (above > 0)
        # To the bounds themselves; that could break bounds on sums by as little, and a penalty has no slope at 0.
        if not m and not self.kind.penalised:
            p = jnp.where(at_lower, lower, jnp.where(at_upper, upper, p))
            free = jnp.argmax(jnp.where(fixed, -1, jnp.minimum(p - lower, upper - p)))
            p = p.at[free].add(jnp.where(fixed[free], 0, 1 - jnp.sum(p)))

        def whole(p: jax.Array) -> jax.Array:
            return jnp.dot(weights, self.losses(p, d))

        losses = self.losses(p, d)
        loss = jnp.max(losses - d["targets"]) if self.kind.worst else jnp.dot(weights, losses)
        total = d["sums"] @ p
        # Lagrange's bound: the minimum of what is minimised plus multipliers times constraints, without these.
        slope = jax.grad(self.penalty)(p, d) + d["sums"].T @ (over - under) - point["y"]
        law_slope = jax.grad(whole)(p)
        least = _least_change(slope + law_slope, p, lower, upper)
        sums_left = jnp.where(over > 0, over * (d["sum_upper"] - total), 0) + jnp.where(
            under > 0, under * (total - d["sum_lower"]), 0
        )
        left = jnp.sum(sums_left) + (loss - jnp.dot(weights, losses - d["targets"]) if self.kind.worst else 0)
        left += point["y"] * (jnp.sum(p) - 1)  # what rounding leaves of the sum counts too
        known = jnp.ones((), bool)
        if self.law.curvature == "separable":
            bend = jnp.diag(jax.hessian(whole)(p))
            ends = [self._ends(whole, p, end) + slope * (end - p) for end in (lower, upper)]
            least = jnp.where(bend < 0, jnp.minimum(functools.reduce(jnp.minimum, ends), 0), least)
        elif self.law.curvature == "convex":
            known = jnp.all(weights >= 0)
        else:
            known = jnp.zeros((), bool)
        known &= d["strength"] >= 0
        gap = jnp.where(known, left - jnp.sum(least), jnp.inf)
        rounding = 4 * np.finfo(p.dtype).eps * (jnp.abs(loss) + jnp.sum(jnp.abs(weights * losses)))
        short = jnp.max(jnp.concatenate([total - d["sum_upper"], d["sum_lower"] - total]), initial=-jnp.inf)
        feasible = (
            (short <= near) & (jnp.abs(jnp.sum(p) - 1) <= near) & jnp.all((p >= lower - near) & (p <= upper + near))
        )
        rest = law_slope + slope  # what holds those that cannot move
        epochs = p * d["budget"] / d["available"] if self.kind.budgeted else jnp.full_like(p, jnp.nan)
        return Mixture(
            proportions=p,
            loss=loss,
            losses=losses,
            penalty=self.penalty(p, d),
            gap=jnp.where(feasible, jnp.maximum(gap, 0) + rounding, jnp.inf),
            lower_multipliers=jnp.where(fixed, jnp.maximum(rest, 0), below),
            upper_multipliers=jnp.where(fixed, jnp.minimum(rest, 0), -above),
            sum_multipliers=under - over,
            output_weights=weights,
            at_lower=at_lower | (fixed & (p - d["lower"] <= near)),
            at_upper=at_upper | (fixed & (d["upper"] - p <= near)),
            epochs=epochs,
            steps=point["steps"],
            converged=point["converged"] & feasible,
            feasible=feasible,
        )

    @staticmethod
    def _ends(whole: Callable[[jax.Array], jax.Array], p: jax.Array, end: jax.Array) -> jax.Array:
        """How the law changes when one proportion alone goes to the end of its interval."""
        moved = jnp.where(jnp.eye(p.shape[0], dtype=bool), end[None], p[None])
        return jax.vmap(whole)(moved) - whole(p)


def _inside(lower: jax.Array, upper: jax.Array) -> tuple[jax.Array, jax.Array]:
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
