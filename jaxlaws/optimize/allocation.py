"""The inputs that minimise a loss under a budget, or the least budget for a loss, with a bound on the error.

The search is over the logarithms of the inputs. There a sum of powers with positive factors is convex, whatever its
exponents, and so is the logarithm of a cost that is such a sum: the problem is a geometric program, and a local
optimum the global one. Whether that is so is found out from how law and cost are computed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal
from jax.tree_util import Partial

from jaxlaws.arguments import beyond_setting, check_law, check_weights, number, setting
from jaxlaws.evaluation import core_ndims_of
from jaxlaws.law import Law, Scalar, record, var, variables
from jaxlaws.numerics import log, plain
from jaxlaws.optimize import costs
from jaxlaws.optimize.answers import extrapolated
from jaxlaws.optimize.batches import Problems, batched, block_size, in_blocks, prepared, rows
from jaxlaws.optimize.curvature import curve
from jaxlaws.optimize.interior_point import Point, Problem, differentiable, search, solve
from jaxlaws.optimize.pieces import Search, in_pieces
from jaxlaws.programs import one_cpu, unchecked
from jaxlaws.ranges import Ranges, ranges_for
from jaxlaws.sharding import with_auto_axes

__all__ = ["Allocation", "allocate"]

LEAST, MOST = 1e-6, 1e18  # bounds of inputs for which none are given
REACH = 4.0  # of one step, in the logarithm of an input; beyond it, powers may have become anything
STARTS = 8  # where a problem is not known to be convex


@record
class Allocation:
    """The answer of [`allocate`][jaxlaws.allocate]; every field has the batch axes first."""

    inputs: Any = var("the best inputs, those given included: a record as the law takes it", unit="as the inputs")
    loss: Scalar = var("the loss there", unit="as the output of the law")
    cost: Scalar = var("the cost there", unit="as the cost")
    multiplier: Scalar = var(
        "by how much the minimum changes with the constraint: the loss with the logarithm of the budget, or the "
        "logarithm of the cost with the target"
    )
    gap: Scalar = var("an upper bound on the loss, or on the logarithm of the cost, less that of the best allocation")
    convex: Scalar = var("whether the problem is known to be convex in the logarithms of the inputs")
    at_lower: Any = var("whether an input is at its lower bound: a record as that of the inputs")
    at_upper: Any = var("whether an input is at its upper bound")
    extrapolated: Any = var(
        "whether an input lies outside the range that the group was fitted on, or the ratio of it and another one"
    )
    lowest: Any = var("the least value of each input among allocations almost as good; NaN without `within`")
    highest: Any = var("the largest value of each input among allocations almost as good")
    steps: Scalar = var("steps of the search")
    converged: Scalar = var("whether the search ended at an optimum")
    feasible: Scalar = var("whether all constraints hold")


def allocate(
    law: Law,
    group: Any,
    inputs: Mapping[str, Any] | None = None,
    /,
    *,
    budget: Any = None,
    target: Any = None,
    cost: Callable[[Any], Any] = costs.training,
    lower: Mapping[str, Any] | None = None,
    upper: Mapping[str, Any] | None = None,
    max_epochs: Any = None,
    min_tokens_per_param: Any = None,
    integers: tuple[str, ...] | None = None,
    powers_of_two: tuple[str, ...] = (),
    within: Any = None,
    weights: Any = None,
    in_range: bool = False,
    **named: Any,
) -> Allocation:
    """The inputs that minimise the loss of a law under a budget, for any number of problems at once.

    With `target` in place of `budget`, the inputs that reach this loss at the least cost. Inputs that are given stay as
    they are, and the others are searched for. All arguments broadcast along leading axes: budgets, groups and
    coefficients, bounds, inputs. A vector of budgets thus gives the trade-off curve, and a vector of sizes, with one
    budget, the curve of constant compute. The search is done in float64 unless arrays of float32 are given, and all
    results have derivatives by everything that goes in.

    Args:
        law: A law.
        group: Name of a group, coefficients, or one name or id per problem.
        inputs: A dict of the inputs that are fixed.
        budget: The most that the cost may be, in its unit: FLOP for the default.
        target: The loss to reach, at most.
        cost: A function from the record of the inputs to a positive number: see `jl.costs`. By default
            6 * params * tokens.
        lower: Lower bounds by name of the input; by default 1e-6, 1 for whole numbers, or the least that makes sense.
        upper: Upper bounds by name; by default 1e18, or the most that makes sense.
        max_epochs: tokens are at most so many times the unique_tokens, for a law that has both.
        min_tokens_per_param: tokens are at least so many times the parameters, those that a law counts: for a small
            model that is trained for longer than is best for its compute. 0 is no bound.
        integers: Inputs that must be whole numbers; by default those that the law says are.
        powers_of_two: Inputs that must be powers of two.
        within: For the near-optimal set, by which part of itself the loss (or cost) may exceed the least one: 0.001
            for a thousandth.
        weights: Weights of the outputs, for a law with several; by default their mean is minimised.
        in_range: Whether to search only the range that the group was fitted on, that of ratios such as tokens per
            parameter included, where it is known. Coefficients have the range of the law.
        **named: Or the inputs that are fixed by name.

    Returns:
        A record, whose `gap` says how far the answer can be from the best there is: 0 or a little more if the problem
        is `convex`, which is the case for laws and costs that are sums of products of powers with positive factors,
        and infinity otherwise, where the best of several local searches is taken. With whole numbers, neighbours of
        the best real numbers are tried: all that matter, and with a gap near 0, for one such input of a convex problem;
        with several the gap is what is lost to real numbers. Look at `converged` and `feasible`. `lowest` and
        `highest` are those of real numbers, and NaN where the search for them did not converge.

    Warns:
        RangeWarning: Answers lie outside the range that the group was fitted on, as `extrapolated` tells of each, or
            end at a bound that was not given. Not inside transformations of JAX.

    Raises:
        TypeError: For a law without the inputs that the cost is made of, or without a loss, and for missing or unknown
            arguments.
        ValueError: For shapes that do not fit, for bounds that exclude each other, for an input that costs nothing and
            that the loss falls with everywhere, if it has no bound, for a budget below the cost of the lower bounds,
            for a target below the loss of the upper ones, and for a range that is not known.

    Example:
        >>> import jaxlaws as jl
        >>> plan = jl.allocate(jl.laws["chinchilla"], "besiroglu2024", budget=1e22)
        >>> print(f"{plan.inputs.params:.4e} {plan.inputs.tokens:.4e} {plan.loss:.4f}")
        9.0452e+09 1.8426e+11 2.1411
        >>> bool(plan.convex), bool(plan.gap < 1e-12), bool(plan.extrapolated.params)
        (True, True, False)
    """
    check_law(law)
    if law.output_shape == ("output",):
        outputs = ", ".join(law.output_columns)
        raise TypeError(f"{law.name} has no loss to minimise; call it for what is best for its inputs: {outputs}")
    if (budget is None) == (target is None):
        raise TypeError(f"{law.name}: give budget or target, and not both")
    if not callable(cost):
        raise TypeError(f"{law.name}: cost must be a function such as jl.costs.training, not {cost!r}")
    given = {_proper(law, name): value for name, value in {**(inputs or {}), **named}.items()}
    free = tuple(v for v in variables(law.inputs) if v.name not in given)
    if not free:
        raise TypeError(f"{law.name}: all inputs are given, so that nothing is left to search for")
    for v in free:
        if v.shape:
            raise TypeError(
                f"{law.name}: give {v.name}; allocate searches for numbers, and optimize_mixture for mixtures"
            )
    names = tuple(v.name for v in free)
    options: dict[str, tuple[Any, tuple[int, ...]]] = (
        {"target": (target, ())} if budget is None else {"budget": (budget, ())}
    )
    if within is not None:
        options["within"] = (within, ())
    known = {v.name: v.unit for v in variables(law.inputs)}
    ratios = []
    if max_epochs is not None:
        if not {"tokens", "unique_tokens"} <= known.keys():
            raise TypeError(f"{law.name}: max_epochs needs inputs called tokens and unique_tokens; use upper=")
        options["max_epochs"] = (max_epochs, ())
        ratios.append(_Ratio("max_epochs", "tokens", "unique_tokens"))
    if min_tokens_per_param is not None:
        sizes = [name for name, unit in known.items() if unit == "parameters"]
        if not sizes or "tokens" not in known:
            raise TypeError(
                f"{law.name}: min_tokens_per_param needs an input called tokens and one in parameters; use lower="
            )
        options["min_tokens_per_param"] = (min_tokens_per_param, ())
        ratios.append(_Ratio("min_tokens_per_param", sizes[0], "tokens"))
    check_weights(law, weights)
    if weights is not None:
        options["weights"] = (weights, (law.sizes[law.output_shape[0]],))
    whole = tuple(v.name for v in free if v.integer) if integers is None else _among(law, integers, names, "integers")
    powers = _among(law, powers_of_two, names, "powers_of_two")
    for v in free:
        least = 1.0 if v.name in (*whole, *powers) else max(LEAST, v.floor or 0, v.bounds[0])
        options[f"lower {v.name}"] = (least, ())
        options[f"upper {v.name}"] = (min(MOST, v.bounds[1]), ())
    bounded: dict[str, set[str]] = {"lower": set(), "upper": set()}
    for kind, bounds in (("lower", lower), ("upper", upper)):
        if not isinstance(bounds, (Mapping, type(None))):
            raise TypeError(f"{law.name}: {kind} must be a dict of bounds by name, such as {{{names[0]!r}: 1e9}}")
        for name, bound in (bounds or {}).items():
            (name,) = _among(law, (name,), names, kind)
            options[f"{kind} {name}"] = (bound, ())
            bounded[kind].add(name)
    cost = cost if isinstance(cost, Partial) else Partial(cost)
    leaves, tree = jax.tree.flatten(cost, is_leaf=lambda x: isinstance(x, list))  # a list of numbers is one array
    options |= {f"number {i} of cost": (leaf, ()) for i, leaf in enumerate(leaves)}
    _check_ends(law, names, tree, *({*names} if in_range else each for each in bounded.values()))

    values, arrays, dtype, shape, traced = prepared(law, group, given, dict.fromkeys(names, ()), options)
    if not traced:
        for v in variables(law.inputs):
            if v.name in given and not v.shape and v.floor is None and (np.asarray(given[v.name]) <= v.above).any():
                raise ValueError(f"{law.name}: {v.name} must be greater than {v.above:g}")
        _check_options(law, {name: np.asarray(value) for name, value in values.items()})
    values |= {ratio.option: ratio.most(values[ratio.option], jnp if traced else np) for ratio in ratios}
    ids = arrays[1]
    if in_range:
        ratios += _bound_by_range(law, ranges_for(law, group, ids), names, bounded, values, jnp if traced else np)
    ratios = [ratio for ratio in ratios if not _as_bound(ratio, values, given, names, jnp if traced else np)]
    if not traced:
        _check_bounds(law, {name: np.asarray(value) for name, value in values.items()}, names, whole, powers)
    kind_of = _Kind(names, budget is None, tree, whole, powers, tuple(ratios), within is not None, weights is not None)
    switched = beyond_setting(dtype)
    with setting(dtype), unchecked():
        values = {name: value.astype(dtype) for name, value in values.items()}
        cores = {name: len(options[name][1]) if name in options else 0 for name in values}
        apart = one_cpu() and not traced and 0 not in shape
        block = block_size(len(names))
        if apart:
            problems = Problems(values, cores, arrays, (), shape, dtype)
            found, extreme = in_pieces(functools.partial(_apart, law.original or law, kind_of), problems, block)
        else:
            found, extreme = _together(law.original or law, kind_of, (*cores.items(),), shape, block, values, arrays)
        if not traced:
            limit = values["target" if budget is None else "budget"]
            _check_reached(law, kind_of, found, np.asarray(extreme), np.asarray(limit))
        tried = {
            name: (-math.inf if name in bounded["lower"] else LEAST, math.inf if name in bounded["upper"] else MOST)
            for name in names
        }
        able = not in_range and all(name in ranges_for(law, group, ids).ends for name in names)
        hint = "; in_range=True searches only there" if able else ""
        outside = extrapolated(law, group, ids, found.inputs, found.feasible, hint, tried)
        found = dataclasses.replace(found, extrapolated=outside)
        # JAX at 32 bits cannot go on with float64.
        result: Allocation = jax.tree.map(np.asarray, found) if switched else found if traced else jax.device_put(found)
        return result


class _Ratio(NamedTuple):
    """A bound of the ratio of two inputs: an option, the input that it keeps from being large, and the other."""

    option: str
    above: str
    below: str

    def most(self, value: Any, xp: Any) -> Any:
        """The most that the ratio may be: a number, also where the option is no bound."""
        return xp.minimum(value, 1e30) if self.option == "max_epochs" else 1 / xp.maximum(value, 1e-30)


def _bound_by_range(
    law: Law, ranges: Ranges, names: tuple[str, ...], bounded: Mapping[str, set[str]], values: dict[str, Any], xp: Any
) -> list[_Ratio]:
    """Bounds of what is searched for that keep it in the range, and the ratios that have one."""
    ratios = []
    for name in names:
        if name in ranges.ends:
            low, high = ranges.of_each(name)
            values[f"lower {name}"] = xp.maximum(values[f"lower {name}"], low)
            values[f"upper {name}"] = xp.minimum(values[f"upper {name}"], high)
        elif not all(name in given for given in bounded.values()):
            raise ValueError(
                f"{law.name}: in_range=True needs the range of {name}, which is not known; "
                f"give {name}, or lower={{{name!r}: ...}} and upper={{{name!r}: ...}}"
            )
    for name in ranges.ends:
        above, _, below = name.partition("/")
        if below and {above, below} & {*names}:
            low, high = ranges.of_each(name)
            values[f"most {above}/{below}"] = xp.clip(high, 1e-30, 1e30)
            values[f"most {below}/{above}"] = 1 / xp.clip(low, 1e-30, 1e30)
            ratios += [_Ratio(f"most {a}/{b}", a, b) for a, b in ((above, below), (below, above))]
    return ratios


class _Kind(NamedTuple):
    """What of the options is used, and for which inputs."""

    names: tuple[str, ...]
    by_target: bool
    cost: Any
    integers: tuple[str, ...]
    powers_of_two: tuple[str, ...]
    ratios: tuple[_Ratio, ...]
    within: bool
    weighted: bool


def _proper(law: Law, name: str) -> str:
    """The proper name of an input, for one of its names; other words are left for `arguments` to refuse."""
    return next((v.name for v in variables(law.inputs) if name in (v.name, *v.aliases)), name)


def _among(law: Law, chosen: Any, names: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Proper names of inputs, all of which are searched for."""
    chosen = (chosen,) if isinstance(chosen, str) else tuple(chosen)
    found = tuple(_proper(law, name) for name in chosen)
    for name in found:
        if name not in names:
            raise TypeError(
                f"{law.name}: {what} of {name!r}, which is not searched for; searched for: {', '.join(names)}"
            )
    return found


def _check_ends(
    law: Law, names: tuple[str, ...], cost: Any, from_below: Collection[str], from_above: Collection[str]
) -> None:
    """A ValueError for inputs that nothing keeps from growing, or from vanishing."""
    ends = "give {0}, or {1}={{{0!r}: ...}}, or another cost=".format
    for v in variables(law.inputs):
        if v.name not in names:
            continue
        if v.name in law.rises_with and v.name not in from_below and v.bounds[0] <= 0:
            raise ValueError(f"{law.name}: nothing keeps {v.name} from vanishing; {ends(v.name, 'lower')}")
        if v.name in law.falls_with and v.name not in (*from_above, *_counted(law, cost)) and v.bounds[1] > MOST:
            raise ValueError(f"{law.name}: {v.name} costs nothing, and the more the better; {ends(v.name, 'upper')}")


@functools.lru_cache
def _counted(law: Law, cost: Any) -> frozenset[str]:
    """The inputs that a cost is computed from."""
    fields = variables(law.inputs)
    inputs = law.inputs(**{v.name: np.ones([law.sizes[axis] for axis in v.shape]) for v in fields})
    jaxpr = jax.make_jaxpr(jax.tree.unflatten(cost, [1.0] * cost.num_leaves))(inputs).jaxpr
    used = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    for equation in reversed(jaxpr.eqns):
        if used & {*equation.outvars}:
            used |= {v for v in equation.invars if not isinstance(v, Literal)}
    return frozenset(v.name for v, x in zip(fields, jaxpr.invars, strict=True) if x in used)


def _as_bound(ratio: _Ratio, values: dict[str, Any], given: Mapping[str, Any], names: tuple[str, ...], xp: Any) -> bool:
    """Whether one input of a ratio is given, so that the other one gets a bound like others in its place."""
    if ratio.above in names and ratio.below in given:
        end, better = f"upper {ratio.above}", xp.minimum
        bound = number(given[ratio.below], ratio.below) * values[ratio.option]
    elif ratio.below in names and ratio.above in given:
        end, better = f"lower {ratio.below}", xp.maximum
        bound = number(given[ratio.above], ratio.above) / values[ratio.option]
    else:
        return False
    del values[ratio.option]
    values[end] = better(values[end], bound)
    return True


def _check_options(law: Law, values: dict[str, np.ndarray]) -> None:
    """A ValueError for numbers that are not finite or positive where they must be."""
    for name, array in values.items():
        if name == "target" and not np.isfinite(array).all():
            raise ValueError(f"{law.name}: target must be finite")
        if name == "min_tokens_per_param" and not (np.isfinite(array) & (array >= 0)).all():
            raise ValueError(f"{law.name}: min_tokens_per_param must be finite, and not below 0")
        positive = name in ("budget", "max_epochs", "within") or name.startswith(("lower", "upper"))
        if positive and not (array > 0).all():
            raise ValueError(f"{law.name}: {name} must be positive")
        if positive and name != "max_epochs" and np.isinf(array).any():
            raise ValueError(f"{law.name}: {name} must be finite")


def _check_bounds(
    law: Law, values: dict[str, np.ndarray], names: tuple[str, ...], whole: tuple[str, ...], powers: tuple[str, ...]
) -> None:
    """A ValueError for bounds that exclude each other."""
    for name in names:
        low, high = np.broadcast_arrays(values[f"lower {name}"], values[f"upper {name}"])
        if name in (*whole, *powers):
            low, high = (_whole(end, name in powers, up, np) for end, up in ((low, True), (high, False)))
        if (low > high).any():
            where = np.unravel_index(np.argmax(low > high), low.shape)
            kind = " for powers of two" if name in powers else " for whole numbers" if name in whole else ""
            raise ValueError(
                f"{law.name}: no allocation{_which(where)}: the lower bound of {name}, {low[where]:g}, is above its "
                f"upper bound, {high[where]:g}{kind}"
            )


def _check_reached(law: Law, kind: _Kind, found: Allocation, extreme: np.ndarray, limit: np.ndarray) -> None:
    """A ValueError where not even the cheapest or the best inputs between the bounds are good enough."""
    missed = ~np.asarray(found.feasible) & (extreme > limit + 1e-9 * np.abs(limit))  # less may be rounding
    if missed.any():
        where = np.unravel_index(np.argmax(missed), missed.shape)
        least, most = float(extreme[where]), float(np.broadcast_to(limit, missed.shape)[where])
        raise ValueError(
            f"{law.name}: no allocation{_which(where)} "
            + (
                f"reaches the target {most:g}; the loss at the upper bounds is {least:g}"
                if kind.by_target
                else f"is within the budget {most:g}; the cost at the lower bounds is {least:g}"
            )
        )


def _whole(bound: Any, power: bool, up: bool, xp: Any) -> Any:
    """The first whole number, or power of two, from a bound on."""
    if not power:
        return xp.ceil(bound) if up else xp.floor(bound)
    near = xp.ldexp(xp.ones_like(bound), xp.round(xp.log2(bound)).astype(np.int32))
    return xp.where(near < bound, 2 * near, near) if up else xp.where(near > bound, near / 2, near)


def _which(where: tuple[Any, ...]) -> str:
    return f" in problem {tuple(map(int, where))}" if where else ""


def _searched(law: Law, kind: _Kind, data: Any) -> tuple[Allocation, jax.Array]:
    """The answers to problems whose axis is the last one, and how good or cheap the bounds are."""
    with plain():
        return _Parts(law, kind).optimum(data)


_apart = Search(_searched, static=2)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _together(
    law: Law,
    kind: _Kind,
    cores: tuple[tuple[str, int], ...],
    shape: tuple[int, ...],
    block: int,
    values: Any,
    arrays: Any,
) -> tuple[Allocation, jax.Array]:
    """The same for a batch as a whole, with its axes first: within a transformation, or on other devices."""

    def solved(values: Any, arrays: Any) -> Any:
        problems = Problems(values, dict(cores), arrays, (), shape, None)
        return rows(in_blocks(functools.partial(_searched, law, kind), problems.whole(), block), shape)

    core_ndims = dict(cores), core_ndims_of(arrays)
    found: tuple[Allocation, jax.Array] = with_auto_axes(solved, (values, arrays), core_ndims)
    return found


class _Found(NamedTuple):
    """A point, what is minimised there or infinity if it breaks a constraint, and what no other one can be below."""

    point: Point
    value: jax.Array
    least: jax.Array


class _Parts:
    """The functions of one problem: x are the logarithms of what is searched for, d is the data."""

    def __init__(self, law: Law, kind: _Kind):
        self.law, self.kind = law, kind
        whole = (*kind.integers, *kind.powers_of_two)
        self.discrete = [j for j, name in enumerate(kind.names) if name in whole]
        self.problem = Problem(self.objective, self.constraints, (False,) * len(kind.names), REACH)

    def inputs(self, x: Any, d: Any) -> Any:
        """The record of all inputs."""
        return self.record(d, [jnp.exp(each) for each in x])

    def record(self, d: Any, found: Any, given: Any = None) -> Any:
        """A record of what was found for the unknowns, and for the other inputs their values, or what is given."""
        names = [v.name for v in variables(self.law.inputs)]
        others = {name: getattr(d["inputs"], name) if given is None else given for name in names}
        return self.law.inputs(**{**others, **dict(zip(self.kind.names, found, strict=True))})

    def loss(self, x: Any, d: Any) -> jax.Array:
        """The loss, or the weighted one."""
        losses: jax.Array = self.law.fn(d["coefs"], self.inputs(x, d))
        if not losses.ndim:
            return losses
        return jnp.dot(d["weights"], losses) if self.kind.weighted else jnp.mean(losses)

    def log_cost(self, x: Any, d: Any) -> jax.Array:
        """The logarithm of the cost."""
        leaves = [d[f"number {i} of cost"] for i in range(self.kind.cost.num_leaves)]
        cost = jax.tree.unflatten(self.kind.cost, leaves)(self.inputs(x, d))
        if callable(cost):
            raise TypeError(f"{self.law.name}: cost gives a function; call it with its numbers first, as in jl.costs")
        cost = jnp.asarray(cost, x[0].dtype)
        if cost.ndim:
            raise TypeError(
                f"{self.law.name}: cost must return one number, not an array of shape {cost.shape}; put numbers that "
                "differ between problems into a jax.tree_util.Partial"
            )
        return log(cost)

    def objective(self, x: Any, d: Any) -> jax.Array:
        """What is minimised."""
        return self.log_cost(x, d) if self.kind.by_target else self.loss(x, d)

    def excess(self, x: Any, d: Any) -> jax.Array:
        """By how much the budget or the target is exceeded."""
        if self.kind.by_target:
            short: jax.Array = (self.loss(x, d) - d["target"]) / self.scale(d)
            return short
        over: jax.Array = self.log_cost(x, d) - log(d["budget"])
        return over

    def scale(self, d: Any) -> jax.Array:
        """What the excess is measured in, so that its rounding errors do not grow with the loss."""
        return jnp.maximum(jnp.abs(d["target"]), 1) if self.kind.by_target else jnp.ones_like(d["budget"])

    def constraints(self, x: Any, d: Any) -> jax.Array:
        """What may not be positive."""
        found, at = [self.excess(x, d)], self.inputs(x, d)
        for option, above, below in self.kind.ratios:
            found.append(log(getattr(at, above) / getattr(at, below)) - log(d[option]))
        return jnp.stack(found)

    def convex(self, low: jax.Array, high: jax.Array, d: Any) -> Any:
        """Whether all this is known to be convex between the bounds."""
        loss, cost = (curve(fn, low, high, d).convex for fn in (self.loss, self.log_cost))
        return jnp.logical_and(loss, cost)  # the logarithms of ratios are linear

    def optimum(self, data: Any) -> tuple[Allocation, jax.Array]:
        """The answers to a batch of problems, whose axis is the last one, and how good or cheap the bounds are."""
        names = self.kind.names
        low, high = (jnp.stack([data[f"{side} {name}"] for name in names]) for side in ("lower", "upper"))
        for j in self.discrete:
            power = names[j] in self.kind.powers_of_two
            low, high = (end.at[j].set(_whole(end[j], power, up, jnp)) for end, up in ((low, True), (high, False)))
        low, high = log(low), log(high)
        convex = batched(self.convex)(low, high, data)
        point, least = self.search(*lax.stop_gradient((data, low, high)), convex)
        chosen_low, chosen_high = low, high
        for j in self.discrete:  # which are now what they are
            chosen_low, chosen_high = (end.at[j].set(point.x[j]) for end in (chosen_low, chosen_high))
        point = differentiable(self.problem, data, chosen_low, chosen_low, chosen_high, point)
        near = self.near(data, point, low, high) if self.kind.within else (jnp.full_like(low, jnp.nan),) * 2
        about = jnp.where(convex, least, -jnp.inf), convex
        found = batched(self.answer)(point._asdict(), data, (low, high), near, about)
        extreme = batched(self.loss)(high, data) if self.kind.by_target else jnp.exp(batched(self.log_cost)(low, data))
        return found, extreme

    def search(self, data: Any, low: jax.Array, high: jax.Array, convex: jax.Array) -> tuple[Point, jax.Array]:
        """Optima, and what none can be below if all is convex.

        The first turn starts where the budget or target is met, and if not all is convex, others start elsewhere. For
        whole numbers, further turns try those around the best real ones.
        """
        n, batch = low.shape
        # Directions that fill space evenly (Roberts' sequence), the first of them none.
        ratios = np.array([[_plastic(n) ** -(j + 1.0)] for j in range(n)], low.dtype)
        turns = jnp.where(jnp.all(convex), 1, STARTS)

        def better(new: _Found, old: _Found, first: Any) -> _Found:
            found: _Found = jax.tree.map(lambda a, b: jnp.where(first | (new.value < old.value), a, b), new, old)
            return found

        def another(i: Any, best: tuple[_Found, _Found]) -> tuple[_Found, _Found]:
            real, whole = best
            low_, high_ = low, high
            for position, j in enumerate(self.discrete):
                down, up = (self.rounded(j, real.point.x[j], up) for up in (False, True))
                x = jnp.clip(jnp.where(((i - turns) >> position) & 1, up, down), low[j], high[j])
                low_, high_ = (end.at[j].set(jnp.where(i < turns, end[j], x)) for end in (low_, high_))
            offset = (jnp.asarray(ratios) * jnp.where(i < turns, i, 0) + 0.5) % 1 - 0.5
            start = self.start(data, low_, high_, offset * (high_ - low_))
            point = search(self.problem, data, start, low_, high_)
            value = jnp.where(batched(self.feasible)(point.x, data), batched(self.objective)(point.x, data), jnp.inf)
            found = _Found(point, value, batched(self.bound)(point._asdict(), data, low_, high_))
            if not self.discrete:
                return better(found, real, i == 0), whole
            # No other whole number can be better than both neighbours, where there is but one and all is convex.
            least = jnp.where(jnp.isfinite(value), found.least, jnp.inf)
            least = jnp.where(i == turns, least, jnp.minimum(least, whole.least))
            tried = better(found, whole, i == turns)._replace(least=least)
            now = better(found, real, i == 0), whole
            chosen: tuple[_Found, _Found] = jax.tree.map(lambda a, b: jnp.where(i < turns, a, b), now, (real, tried))
            return chosen

        nothing, number = jnp.zeros_like(low), jnp.zeros(batch, low.dtype)
        slack = jnp.zeros((1 + len(self.kind.ratios), batch), low.dtype)
        none = _Found(
            Point(nothing, number, nothing, nothing, slack, slack, number.astype(jnp.int32), number > 0), number, number
        )
        all_turns = turns + (2 ** len(self.discrete) if self.discrete else 0)
        real, whole = lax.fori_loop(0, all_turns, another, (none, none))
        if not self.discrete:
            return real.point, real.least
        known = (len(self.discrete) == 1) & jnp.isfinite(whole.least)
        least = jnp.where(known, jnp.maximum(real.least, whole.least), real.least)
        return whole.point._replace(steps=real.point.steps + whole.point.steps), least

    def start(self, data: Any, low: jax.Array, high: jax.Array, offset: jax.Array) -> jax.Array:
        """Inputs between the bounds that are about at the budget or target, in a direction from the middle."""
        margin = 0.05 * (high - low)
        middle = (low + high) / 2 + offset
        reach = jnp.max(high - low, 0)
        excess = batched(self.excess)

        def at(t: jax.Array) -> jax.Array:
            return jnp.clip(middle + t, low + margin, high - margin)

        def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            a, b = ends
            over = (excess(at((a + b) / 2), data) > 0) != self.kind.by_target
            return jnp.where(over, a, (a + b) / 2), jnp.where(over, (a + b) / 2, b)

        a, b = lax.fori_loop(0, 12, halve, (-reach, reach))
        # On the side where the budget or target is met: losses may grow beyond all bounds on the other.
        found: jax.Array = jnp.where(low < high, at(b + 1) if self.kind.by_target else at(a), low)
        return found

    def rounded(self, j: int, x: jax.Array, up: bool) -> jax.Array:
        """The logarithm of the next whole number or power of two; one that is meant but for rounding stays."""
        turn = jnp.ceil if up else jnp.floor
        near = (1e-9 if x.dtype == np.float64 else 1e-4) * (-1 if up else 1)
        if self.kind.names[j] in self.kind.powers_of_two:
            return turn(x / math.log(2) + near) * math.log(2)
        return log(turn(jnp.exp(x) * (1 + near)))

    def exact(self, name: str, x: jax.Array) -> jax.Array:
        """An input from its logarithm, without rounding where it is a whole number or a power of two."""
        if name in self.kind.powers_of_two:
            return jnp.ldexp(jnp.ones_like(x), jnp.round(x / math.log(2)).astype(np.int32))
        return jnp.round(jnp.exp(x)) if name in self.kind.integers else jnp.exp(x)

    def near(self, data: Any, point: Point, low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The range of each unknown where what is minimised exceeds the minimum by no more than is allowed."""
        n, batch = low.shape
        best = batched(self.objective)(point.x, data)
        step = log(1 + data["within"]) if self.kind.by_target else data["within"] * jnp.abs(best)
        directions = jnp.repeat(jnp.concatenate([jnp.eye(n), -jnp.eye(n)]).astype(low.dtype).T, batch, axis=1)
        many = jax.tree.map(lambda a: jnp.concatenate([a] * 2 * n, -1), {**data, "most": best + step})
        many["direction"] = directions
        low_, high_, x = (jnp.concatenate([a] * 2 * n, -1) for a in (low, high, lax.stop_gradient(point.x)))

        def constraints(x: Any, d: Any) -> jax.Array:
            return jnp.concatenate([self.constraints(x, d), jnp.reshape(self.objective(x, d) - d["most"], 1)])

        margin = 1e-3 * (high_ - low_)
        start = jnp.where(low_ < high_, jnp.clip(x, low_ + margin, high_ - margin), low_)
        problem = Problem(lambda x, d: jnp.sum(d["direction"] * x), constraints, (False,) * n, REACH)
        found = solve(problem, many, start, low_, high_)
        ends = jnp.where(found.converged, jnp.sum(directions * found.x, 0), jnp.nan).reshape(2, n, batch)
        return jnp.exp(ends[0]), jnp.exp(-ends[1])

    def feasible(self, x: jax.Array, d: Any) -> jax.Array:
        near = 1e-9 if x.dtype == np.float64 else 1e-4
        return jnp.all(self.constraints(x, d) <= near)

    def bound(self, point: Any, d: Any, low: jax.Array, high: jax.Array) -> jax.Array:
        """What is minimised cannot be below this between the bounds, if all is convex.

        That is Lagrange's bound: the minimum of the objective plus multipliers times constraints, without these.
        """
        x, z = point["x"], point["z"]
        lagrangian = lambda x: self.objective(x, d) + jnp.dot(z, self.constraints(x, d))  # noqa: E731
        value, slope = jax.value_and_grad(lagrangian)(x)
        ends = jnp.where(low < high, jnp.minimum(slope * (low - x), slope * (high - x)), 0)
        size = jnp.abs(value) + jnp.sum(jnp.abs(jax.grad(self.objective)(x, d)) * (high - low))
        found: jax.Array = value + jnp.sum(ends) - 8 * np.finfo(x.dtype).eps * size
        return found

    def answer(self, point: Any, d: Any, bounds: Any, near: Any, about: Any) -> Allocation:
        x, (low, high), (least, convex) = point["x"], bounds, about
        inputs = [self.exact(name, x[j]) for j, name in enumerate(self.kind.names)]
        feasible = self.feasible(x, d) & jnp.all(low <= high)
        close = 1e-7 if x.dtype == np.float64 else 1e-4
        gap = self.objective(x, d) - least
        unknown = None if self.kind.within else jnp.full_like(x[0], jnp.nan)
        return Allocation(
            inputs=self.record(d, inputs),
            loss=self.loss(x, d),
            cost=jnp.exp(self.log_cost(x, d)),
            multiplier=-point["z"][0] / self.scale(d),
            gap=jnp.where(feasible & ~jnp.isnan(gap), jnp.maximum(gap, 0), jnp.inf),
            convex=convex,
            at_lower=self.record(d, x - low <= close, jnp.zeros((), bool)),
            at_upper=self.record(d, high - x <= close, jnp.zeros((), bool)),
            extrapolated=jnp.zeros((), bool),  # which is found out afterwards, of all problems at once
            lowest=self.record(d, near[0], unknown),
            highest=self.record(d, near[1], unknown),
            steps=point["steps"],
            converged=point["converged"] & feasible,
            feasible=feasible,
        )


def _plastic(n: int) -> float:
    """The root of x**(n + 1) = x + 1."""
    x = 1.0
    for _ in range(50):
        x = (1 + x) ** (1 / (n + 1))
    return x
