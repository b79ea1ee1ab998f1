"""The mixture of domains that minimises the loss, with a bound on how far from the best it is."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlaws.arguments import beyond_setting, check_law, check_weights, setting, summing_to
from jaxlaws.evaluation import core_ndims_of
from jaxlaws.law import Law, Var, variables
from jaxlaws.numerics import plain
from jaxlaws.optimize.answers import extrapolated
from jaxlaws.optimize.batches import Problems, block_size, in_blocks, prepared, rows
from jaxlaws.optimize.branch import BRANCHES, best_of_all, doubtful, improved
from jaxlaws.optimize.mixture_parts import Kind, Mixture, Parts
from jaxlaws.optimize.pieces import Search, in_pieces
from jaxlaws.programs import one_cpu, unchecked
from jaxlaws.ranges import ranges_for
from jaxlaws.sharding import with_auto_axes

__all__ = ["Mixture", "optimize_mixture"]


def optimize_mixture(
    law: Law,
    group: Any,
    inputs: Mapping[str, Any] | None = None,
    /,
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
    strength: Any = None,
    within: Any = None,
    unconstrained: bool = False,
    in_range: bool = False,
    **named: Any,
) -> Mixture:
    """The proportions that minimise the loss of a law, for thousands of problems at once.

    All arguments broadcast along leading axes: groups and coefficients, weights, bounds, budgets, priors. The search
    is done in float64 unless arrays of float32 are given. All of the answer has derivatives by whatever goes in, as
    long as the active bounds stay the same, and NaN in their place where the search did not converge.

    Args:
        law: A law with one input whose elements sum to 1.
        group: Name of a group, coefficients, or one name or id per problem.
        inputs: A dict of the other inputs of the law.
        weights: Weights of the outputs; by default their mean is minimised.
        targets: Minimise the worst of output - target instead; 0 for the worst output.
        lower: Least proportion of each domain.
        upper: Largest proportion of each domain.
        available: Tokens there are of each domain; needs `budget`.
        budget: Tokens that are trained on in all; with `available`, no domain is used for more than `max_epochs`.
        max_epochs: Passes over the tokens of a domain, at most; a number, or one for each.
        sums: For bounds on sums of proportions, a matrix with a row per sum and a column per domain.
        sum_lower: Least value of each sum; the same as `sum_upper` for a sum that is given.
        sum_upper: Largest value of each sum.
        prior: Proportions to stay close to: `strength` times the Kullback-Leibler divergence from them, in nat, is
            added to what is minimised.
        strength: See `prior`, in units of the loss. Infinity gives the mixture that is closest to the prior; `penalty`,
            `gap` and multipliers are then of the divergence alone, in nat.
        within: How far each proportion can move: the result's `lowest` and `highest` are its least and largest value
            among the mixtures that meet all constraints and whose loss + penalty is above that of the answer by at
            most `within` times the size of `loss`, such as 0.01; the other proportions are free to move along. Where
            the problem is not convex, the range can be wider than that, as it is searched for from the answer on. NaN
            where a search did not converge.
        unconstrained: Whether to find also what would be best without bounds, tokens available and sums, for the
            result's `unconstrained` and `unconstrained_loss`, in twice the time. NaN where that did not converge.
        in_range: Whether to search only the proportions that the runs of the group had. Coefficients have the range of
            the law.
        **named: Or the other inputs by name.

    Returns:
        A record, whose `gap` says how far the answer can be from the best there is: 0 or a little more for a convex
        problem, and with weights also for one with several optima, if each output is a sum of functions of one
        proportion; infinity where nothing is known. Look at `converged` and `feasible`, which are false where the
        search did not end or where constraints contradict each other; `conflicting` tells then which sums take part.

    Warns:
        RangeWarning: Answers lie outside the range that the group was fitted on, as `extrapolated` tells of each
            proportion. Not inside transformations of JAX.

    Raises:
        ValueError: For shapes that do not fit, for bounds that leave no mixture, and for a range that is not known.

    Example:
        >>> import jaxlaws as jl
        >>> best = jl.optimize_mixture(jl.laws["domain_mixture"], "410M", in_range=True)
        >>> print(best.proportions.round(4))
        [0.1106 0.1875 0.0938 0.2168 0.3914]
        >>> bool(best.converged), bool(best.gap < 1e-10)
        (True, True)
        >>> near = jl.optimize_mixture(jl.laws["domain_mixture"], "410M", in_range=True, within=0.005)
        >>> print(near.lowest.round(4), near.highest.round(4))
        [0.011  0.     0.0215 0.0166 0.1087] [0.3993 0.1875 0.0938 0.25   0.75  ]
    """
    inputs = {**(inputs or {}), **named}
    simplex = _simplex_input(law, inputs)
    if (available is None) != (budget is None):
        raise TypeError(f"{law.name}: give available and budget together")
    if (prior is None) != (strength is None):
        raise TypeError(f"{law.name}: give prior and strength together")
    if weights is not None and targets is not None:
        raise TypeError(f"{law.name}: give weights or targets, not both")
    if weights is None and targets is None:
        check_weights(law, None)
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
        "strength": (0.0 if strength is None else strength, ()),
        "within": (1.0 if within is None else within, ()),
    }
    values, arrays, dtype, shape, traced = prepared(law, group, inputs, {simplex.name: (k,)}, options)
    if np.ndim(prior):  # one number for all is the same for all, whatever it is
        values["prior"] = summing_to(values["prior"], 1.0, f"{law.name}: prior")
    if in_range:
        ranges = ranges_for(law, group, arrays[1])
        if simplex.name not in ranges.ends:
            raise ValueError(f"{law.name}: in_range=True needs a range of {simplex.name}; none is known, so use upper=")
        low, high = ranges.of_each(simplex.name)
        at: Any = jnp if traced else np
        values |= {"lower": at.maximum(values["lower"], low), "upper": at.minimum(values["upper"], high)}
    if not traced:
        _check_bounds(law, {name: np.asarray(value) for name, value in values.items()})
    switched = beyond_setting(dtype)
    with setting(dtype), unchecked():
        values = {name: value.astype(dtype) for name, value in values.items()}
        kind, compiled = Kind(targets is not None, prior is not None), law.original or law
        cores = {name: len(core) for name, (_, core) in options.items()}
        apart = one_cpu() and not traced and 0 not in shape
        xp: Any = np if apart else jnp
        block = block_size(k)

        def run(step: Callable[..., Mixture], values: Any, *found: Mixture, only: Any = None) -> Mixture:
            """A step of the search for all problems, or where these are apart for those alone that need it."""
            static = (step, compiled, simplex, kind)
            if not apart:
                most = math.prod(shape) if step is best_of_all else block
                result: Mixture = _together(static, (*cores.items(),), shape, most, values, arrays, found)
                return result
            problems = Problems(values, cores, arrays, found, shape, dtype)
            program = functools.partial(_branches if step is improved else _apart, *static)
            if only is None:
                result = in_pieces(program, problems, block)
                return result
            chosen = np.flatnonzero(only)
            better = in_pieces(program, problems, BRANCHES if step is improved else block, chosen)
            result = jax.tree.map(functools.partial(_put, chosen, shape), found[0], better)
            return result

        def best(values: Any) -> Mixture:
            found = run(_optimum, values)
            if law.curvature == "separable" and not kind.worst:
                if not apart:
                    found = run(best_of_all, values, found)
                elif (unsure := doubtful(found)).any():
                    found = run(improved, values, found, only=unsure)
            return found

        found = best(values)
        if within is not None:
            found = run(_with_ranges, values, found)
        if m and not (apart and found.feasible.all()):
            found = run(_with_conflicts, values, found, only=~found.feasible)
        if unconstrained:
            bounds = {"lower": 0, "upper": 1, "available": math.inf, "max_epochs": 1}
            bounds |= {"sum_lower": -math.inf, "sum_upper": math.inf}
            free = best({**values, **{name: xp.full_like(values[name], bound) for name, bound in bounds.items()}})
            found = dataclasses.replace(
                found,
                unconstrained=xp.where(free.converged[..., None], free.proportions, math.nan),
                unconstrained_loss=xp.where(free.converged, free.loss, math.nan),
            )
        if budget is None:
            found = dataclasses.replace(found, epochs=found.epochs * math.nan)
        answers = dataclasses.replace(arrays[2], **{simplex.name: found.proportions})
        hint = "" if in_range else "; in_range=True searches only there"
        outside = extrapolated(law, group, arrays[1], answers, found.feasible, hint, {})
        found = dataclasses.replace(found, extrapolated=outside)
        # JAX at 32 bits cannot go on with float64.
        return jax.tree.map(np.asarray, found) if switched else found if traced else jax.device_put(found)


def _put(chosen: np.ndarray, shape: tuple[int, ...], old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """What is known of all problems, with what is new of some of them."""
    flat = old.reshape((math.prod(shape), *old.shape[len(shape) :])).copy()
    flat[chosen] = new
    return flat.reshape(old.shape)


def _simplex_input(law: Law, inputs: Any) -> Var:
    check_law(law)
    for v in variables(law.inputs):
        if v.total == 1:
            if v.name in inputs:
                raise TypeError(f"{law.name}: {v.name} is what is searched for; bound it with lower= and upper=")
            return v
    raise TypeError(f"{law.name} has no input whose elements sum to 1")


def _check_bounds(law: Law, values: dict[str, np.ndarray]) -> None:
    """A ValueError for bounds that leave no mixture, which says which they are, and for what cannot be negative."""
    for name in ("available", "max_epochs", "prior", "strength"):
        if not (values[name] >= 0).all():
            raise ValueError(f"{law.name}: {name} must not be negative or NaN")
    if (values["lower"] < 0).any():
        raise ValueError(f"{law.name}: lower must not be negative")
    if (np.isfinite(values["upper"]) & (values["upper"] > 1 + 1e-6)).any():
        raise ValueError(f"{law.name}: upper must be at most 1; bounds are parts of the whole, not percent")
    for name in ("budget", "within"):
        if not (values[name] > 0).all():
            raise ValueError(f"{law.name}: {name} must be positive")
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


def _stepped(
    step: Callable[..., Mixture], law: Law, simplex: Var, kind: Kind, data: dict[str, Any], *found: Mixture
) -> Mixture:
    """One step of the search for problems whose axis is the last one."""
    share = data["max_epochs"] * data["available"] / data["budget"]
    # Sums whose largest coefficient is 1, so that what is left of their bounds is as exact as proportions are.
    scale = jnp.max(jnp.abs(data["sums"]), 1)
    scale = lax.stop_gradient(jnp.where(scale > 0, scale, 1))
    data = {**data, "upper": jnp.minimum(data["upper"], share), "sum_scale": scale}
    data |= {"sums": data["sums"] / scale[:, None]}
    data |= {name: data[name] / scale for name in ("sum_lower", "sum_upper")}
    only_prior = jnp.isinf(data["strength"])  # whose divergence alone is minimised, then
    data |= {"counted": jnp.where(only_prior, 0.0, jnp.ones_like(share[0]))}
    data |= {"strength": jnp.where(only_prior, 1, data["strength"])}
    with plain():
        return step(Parts(law, simplex, kind), data, *found)


_apart = Search(_stepped, static=4)
_branches = Search(_stepped, static=4, few=8)  # of dozens of searches each


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _together(
    static: tuple[Any, ...],
    cores: tuple[tuple[str, int], ...],
    shape: tuple[int, ...],
    most: int,
    values: Any,
    arrays: Any,
    found: tuple[Mixture, ...],
) -> Mixture:
    """One step of the search for a batch as a whole: within a transformation, or on other devices."""

    def solved(values: Any, arrays: Any, found: tuple[Mixture, ...]) -> Any:
        problems = Problems(values, dict(cores), arrays, found, shape, None)
        return rows(in_blocks(functools.partial(_stepped, *static), problems.whole(), most), shape)

    core_ndims = dict(cores), core_ndims_of(arrays), jax.tree.map(lambda x: x.ndim - len(shape), found)
    result: Mixture = with_auto_axes(solved, (values, arrays, found), core_ndims)
    return result


def _optimum(parts: Parts, data: Any) -> Mixture:
    return parts.optimum(data)


def _with_ranges(parts: Parts, data: Any, found: Mixture) -> Mixture:
    return parts.with_ranges(data, found)


def _with_conflicts(parts: Parts, data: Any, found: Mixture) -> Mixture:
    return dataclasses.replace(found, conflicting=parts.conflicting(data) & ~found.feasible)
