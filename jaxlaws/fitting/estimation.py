"""Fitting a law to measured runs."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc

from jaxlaws.arguments import check_law, setting
from jaxlaws.fitting.form import Form, form_of, linear_fields
from jaxlaws.fitting.levenberg_marquardt import Found
from jaxlaws.fitting.objectives import OBJECTIVES
from jaxlaws.fitting.runs import Runs, read_runs
from jaxlaws.fitting.starts import by_rows, rounding, solve_all, spread
from jaxlaws.fitting.statistics import Spread, statistics
from jaxlaws.fitting.storage import write_coefs
from jaxlaws.law import Law, variables
from jaxlaws.numerics import plain
from jaxlaws.programs import QUICK, Program
from jaxlaws.scores import Scores, scores_of
from jaxlaws.tables import DataError, rows_text

__all__ = [
    "FLOAT64",
    "Fit",
    "check_level",
    "fit",
    "fit_runs",
    "fixed_values",
    "linearised",
    "problem",
    "records",
    "t_quantile",
]

FLOAT64 = np.dtype(np.float64)
SAME = 1e-6  # relative difference of objectives that count as the same minimum
LEFT = 1e-9  # by how much an objective may be more than the least one found, in parts of it


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """Coefficients of a law that were fitted to measured runs, and how well.

    Attributes:
        law: The law, with the fitted groups in place of its own, and the ranges of their runs.
        coefs: The coefficients of each group, in float64: take them wherever a group is asked for.
        stderr: Standard errors of the coefficients, as records like these, from the derivatives of the predictions at
            the optimum and the size of the residuals; of robust objectives, whatever the sizes of the errors of
            different runs ("sandwich"). NaN on a bound, infinite where the runs do not tell.
        covariance: For each group, the covariance matrix of what was fitted, in the order of `names`; 0 for
            coefficients on a bound, NaN where there are no more runs than coefficients.
        untold: For each group, directions in these numbers in which the runs tell nothing, [direction, number]; an
            interval of a prediction that changes in one of them is infinite.
        names: Names of the numbers in a covariance matrix, such as `alpha` or `t[0][2]`.
        objective: What was minimised: "squared", "huber_log" or "relative".
        value: What is left of it, a sum over the runs, per group; with shared coefficients over all of them.
        converged: Whether another step would gain nothing, per group.
        share: The share of the starts that converged at this minimum, per group; for separate outputs, the least of
            these. Some of the others may be on their way there: starts that fall far behind are given up.
        rank: How many numbers the runs tell apart, per group.
        condition: Condition number of the derivatives, each coefficient in its own unit; per group.
        freedom: How many runs are left per group when every coefficient has one; for separate outputs, the least.
        flags: What to know of each group before one relies on it, in words; empty if there is nothing.
        residuals: Measured less predicted, in the order of the table, [run] or [run, output]; those of weight 0, too.
            NaN where a run is left out, since it lacks a number.
        scores: Scores on the runs of the fit, without those of weight 0.
        runs: The runs.
        form: What was fitted, for `bootstrap`.
    """

    law: Law
    coefs: Mapping[str, Any]
    stderr: Mapping[str, Any]
    covariance: Mapping[str, np.ndarray]
    untold: Mapping[str, np.ndarray]
    names: tuple[str, ...]
    objective: str
    value: Mapping[str, float]
    converged: Mapping[str, bool]
    share: Mapping[str, float]
    rank: Mapping[str, int]
    condition: Mapping[str, float]
    freedom: Mapping[str, int]
    flags: Mapping[str, tuple[str, ...]]
    residuals: np.ndarray
    scores: Scores
    runs: Runs = dataclasses.field(repr=False)
    form: Form = dataclasses.field(repr=False)
    fixed: Mapping[str, np.ndarray] = dataclasses.field(repr=False)

    def __repr__(self) -> str:
        groups = f"{len(self.coefs)} groups" if len(self.coefs) > 1 else f"group {next(iter(self.coefs))!r}"
        told = [f"{np.count_nonzero(self.runs.weights > 0)} runs", f"R2 {self.scores.r2:.6f}"]
        few = {name: left <= 0 for name, left in self.freedom.items()}
        lost = {name: not converged for name, converged in self.converged.items()}
        if all(few.values()):
            told.pop()  # it is 1, whatever the law
        for words, which in (("no more runs than coefficients", few), ("not converged", lost)):
            count = sum(which.values())
            told += [words if count == len(which) else f"{words} in {count} of the groups"] if count else []
        return f"<Fit of {self.law.name}: {groups}, {', '.join(told)}>"

    def interval(self, level: float = 0.9) -> dict[str, tuple[Any, Any]]:
        """Between which values each coefficient lies with a probability, per group, as two records.

        From the standard errors and Student's distribution; NaN on a bound.
        """
        found = {}
        for name, coefs in self.coefs.items():
            t = t_quantile((1 + check_level(level)) / 2, self.freedom[name])
            error = self.stderr[name]
            low, high = (
                type(coefs)(
                    **{v.name: getattr(coefs, v.name) + side * getattr(error, v.name) for v in variables(type(coefs))}
                )
                for side in (-t, t)
            )
            found[name] = low, high
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the coefficients to a file in JSON, with what is known of them; whole, or not at all.

        [`read_coefs`][jaxlaws.read_coefs] reads them back bit for bit.

        Args:
            path: The file.

        Raises:
            OSError: The file cannot be written.
        """
        write_coefs(self, path)


def check_level(level: float) -> float:
    """The level, if it can be one."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.9, not {level}")
    return level


@functools.cache
def t_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's distribution; infinite without a degree of freedom."""
    if freedom <= 0:
        return float("inf")
    with setting(FLOAT64):
        low, high = 0.0, 1e9
        for _ in range(100):
            t = (low + high) / 2
            beyond = float(betainc(freedom / 2, 0.5, freedom / (freedom + t * t))) / 2
            low, high = (t, high) if 1 - beyond < probability else (low, t)
    return high


def fit(
    law: Law,
    table: Any,
    group: str | None = None,
    *,
    objective: str | None = None,
    weights: Any = None,
    drop_missing: bool = False,
    shared: Iterable[str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    starts: int | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Fit:
    """Coefficients of a law from measured runs, for all groups at once.

    Coefficients in which the law is linear are solved for; the others are searched for from many starts by the method
    of Levenberg and Marquardt. All of it is in float64, whatever JAX is set to.

    Args:
        law: The law.
        table: The runs: a table of any kind, or the path of one (see [`read_table`][jaxlaws.read_table]), with the
            columns of the inputs and of the outputs.
        group: The column that holds each run's group. By default `group`, or one group `all_data` without it.
        objective: What is minimised, a sum over runs and outputs: "squared" errors in the unit of the output,
            "relative" ones (both halved), or "huber_log", Huber's function (delta = 1e-3) of the error of the
            logarithm, as in Hoffmann et al. 2022. By default that of the law.
        weights: Weight of each run in that sum, an array or the name of a column; by default 1. A run of weight 2
            counts like two runs; one of weight 0 does not count, and may lack any number.
        drop_missing: Leave out runs that lack a number (an input, an output or the weight), such as those that diverged
            and have NaN for a loss, as if their weight were 0, with a warning that counts them.
        shared: Names of coefficients that have one value for all groups; by default those of the law.
        fixed: Values of coefficients that are not fitted.
        bounds: Least and largest value of a coefficient, None for no bound, in place of those of the law.
        starts: How many starts the search has, by default 64; 16 where it has only one coefficient to look for, and 256
            where it has more than ten; or the starts themselves: values of the coefficients that the law is not linear
            in, each an array with the starts first (others are allowed, and not used).
        seed: Another seed gives other starts.

    Returns:
        The fit. Look at its `flags`: a group that cannot be fitted well does not keep the others from it.

    Raises:
        DataError: A column is missing or holds what cannot be used.

    Warns:
        MissingWarning: Runs were left out.

    Example:
        >>> import numpy as np, jaxlaws as jl
        >>> law = jl.laws["sft"]
        >>> size = np.geomspace(200, 4e5, 12)
        >>> noise = 1 + 0.01 * np.random.default_rng(0).normal(size=12)
        >>> fit = jl.fit(law, {"sft_data_size": size, "sft_loss": (1 + 5 * size**-0.3) * noise})
        >>> {name: round(value, 2) for name, value in jl.as_dict(fit.coefs["all_data"]).items()}
        {'L_inf': 0.98, 'A': 4.79, 'alpha': 0.29}
    """
    check_law(law)
    runs = read_runs(law, table, group, weights, drop_missing=drop_missing)
    runs.dropped.warn()
    return fit_runs(
        runs,
        objective=objective,
        shared=shared,
        fixed=fixed,
        bounds=bounds,
        starts=starts,
        seed=seed,
    )


def fit_runs(
    runs: Runs,
    *,
    objective: str | None = None,
    shared: Iterable[str] | None = None,
    fixed: Mapping[str, Any] | None = None,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    starts: int | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Fit:
    """The same for runs that were read."""
    law = runs.law
    objective = law.objective if objective is None else objective
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(map(repr, OBJECTIVES))}, not {objective!r}")
    if objective != "squared":
        bad = np.any(runs.measured <= 0, axis=1)
        if bad.any():
            columns = " and ".join(map(repr, law.output_columns))
            rows = rows_text(bad, runs.first_row)
            raise DataError(f"column {columns} must be positive for objective {objective!r}: {rows}")
    known = [v.name for v in variables(law.coefs)]
    if isinstance(shared, str):
        raise ValueError(f"shared must be names in a list, such as [{shared!r}]")
    common = [v.name for v in variables(law.coefs) if v.shared] if shared is None else list(shared)
    for name in (*common, *(fixed or {}), *(bounds or {})):
        if name not in known:
            raise ValueError(f"{law.name} has no coefficient {name!r}; it has {', '.join(known)}")
    values = fixed_values(runs, fixed or {})
    form = form_of(
        law,
        jax.tree.map(lambda x: x[:4], runs.inputs),
        several=len(runs.groups) > 1,
        shared=common,
        fixed=values,
        bounds=_bounds(law, bounds or {}),
        objective=objective,
    )
    if not form.count:
        raise ValueError(f"{law.name}: all coefficients are fixed; there is nothing to fit")
    data, measured, weight = problem(runs, form, values)
    start = _starts(form, len(runs.groups), starts, seed)
    found = solve_all(form, data, measured, weight, start)
    return _assembled(runs, form, values, data, measured, weight, found)


def problem(runs: Runs, form: Form, fixed: Mapping[str, np.ndarray]) -> tuple[Any, np.ndarray, np.ndarray]:
    """What the search takes: inputs and fixed coefficients, measurements, and weights."""
    measured = runs.padded(runs.measured)  # [group, row, output]
    measured = np.moveaxis(measured, -1, 1) if form.parts > 1 else measured.reshape(len(measured), 1, -1)
    weight = np.where(runs.present, runs.padded(runs.weights), 0)[:, None]
    repeat = measured.shape[-1] // weight.shape[-1]
    weight = np.broadcast_to(np.repeat(weight, repeat, -1), measured.shape)
    return (runs.padded(runs.inputs), dict(fixed)), measured[:, :, None], weight[:, :, None]


def fixed_values(runs: Runs, fixed: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Values of fixed coefficients for all groups, [group, ...]."""
    found = {}
    for v in variables(runs.law.coefs):
        if v.name in fixed:
            shape = tuple(runs.law.sizes[axis] for axis in v.shape)
            value = np.asarray(fixed[v.name], np.float64)
            if value.shape not in ((), shape):
                raise ValueError(f"{runs.law.name}: fixed {v.name} has shape {value.shape}, not {shape}")
            if not np.isfinite(value).all():
                raise ValueError(f"{runs.law.name}: fixed {v.name} must be finite, not {value}")
            found[v.name] = np.broadcast_to(value, (len(runs.groups), *shape)).copy()
    return found


def _bounds(law: Law, given: Mapping[str, tuple[float | None, float | None]]) -> dict[str, tuple[float, float]]:
    found = {v.name: v.bounds for v in variables(law.coefs)}
    for name, pair in given.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(f"{law.name}: bounds of {name} must be a pair such as (0, None), not {pair!r}")
        low, high = pair
        found[name] = (-np.inf if low is None else float(low), np.inf if high is None else float(high))
        if not found[name][0] < found[name][1]:
            raise ValueError(f"{law.name}: the bounds of {name} leave nothing between {low} and {high}")
    return found


def _starts(form: Form, groups: int, starts: int | Mapping[str, Any] | None, seed: int) -> np.ndarray:
    """The starts, [number, group, part, start]."""
    if not isinstance(starts, Mapping):
        if starts is None:
            nonlinear = len(form.shapes) - sum(name in linear_fields(form.law) for name, _ in form.shapes)
            starts = 256 if nonlinear > 10 else 64 if len(form.linear) - sum(form.linear) > 1 else 16
        if starts < 1:
            raise ValueError(f"there must be at least one start, not {starts}")
        ranges = {v.name: v.start for v in variables(form.law.coefs)}
        each = [ranges[name] for (name, _), size in zip(form.shapes, form.sizes, strict=True) for _ in range(size)]
        searched = [i for i, linear in enumerate(form.linear) if not linear]
        points = np.zeros((form.count, starts if searched else 1))
        points[searched] = spread([each[i] for i in searched], points.shape[1], seed)
        low, high = np.asarray(form.lower)[:, None], np.asarray(form.upper)[:, None]
        points = np.clip(points, low, high)
        return np.broadcast_to(points[:, None, None], (form.count, groups, form.parts, points.shape[1]))
    values = {}
    firsts = np.cumsum([0, *form.sizes[:-1]])
    for (name, shape), first in zip(form.shapes, firsts, strict=True):
        full = (form.parts, *shape) if form.parts > 1 else shape
        if form.linear[first]:
            values[name] = np.zeros((1, *full))
            continue
        if name not in starts:
            raise ValueError(f"{form.law.name}: starts have no {name}, which the law is not linear in")
        value = np.atleast_1d(np.asarray(starts[name], np.float64))
        if value.shape[1:] not in ((), full):
            raise ValueError(f"{form.law.name}: starts of {name} have shape {value.shape}; it must end in {full}")
        if not np.isfinite(value).all():
            raise ValueError(f"{form.law.name}: starts of {name} must be finite")
        value = value if value.ndim > 1 else value.reshape(-1, *[1] * len(full))
        values[name] = np.broadcast_to(value, (len(value), *full))
    count = max(map(len, values.values()))
    for name, value in values.items():
        if len(value) not in (1, count):
            raise ValueError(f"{form.law.name}: there are {len(value)} starts of {name}, and {count} of others")
    values = {name: np.broadcast_to(value, (count, *value.shape[1:])) for name, value in values.items()}
    numbers = form.numbers(values)  # [number, start, part]
    return np.broadcast_to(np.moveaxis(numbers, 1, 2)[:, None], (form.count, groups, form.parts, count))


def linearised(form: Form, data: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions [group, part, row] at x, [number, group, part], and their derivatives by the numbers."""
    shared = bool(form.shared)
    with setting(FLOAT64):
        at = x if shared else np.swapaxes(x, 1, 2)
        predicted, slopes = map(np.asarray, _linearised(form, by_rows(form, data), at))
    # From [row, block, problem], where groups are blocks if they share coefficients.
    order = (-2, -1, -3) if shared else (-1, -2, -3)
    return tuple(np.moveaxis(values, order, (-3, -2, -1)) for values in (predicted, slopes))  # type: ignore[return-value]


def _derivatives(form: Form, data: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    with plain():  # for few points
        predicted, slopes = form.derivatives([*x], range(form.count), data)
    return predicted, jnp.stack(slopes)


_linearised = Program(_derivatives, static=1, cpu_options=QUICK)


def _assembled(
    runs: Runs, form: Form, fixed: Mapping[str, np.ndarray], data: Any, measured: Any, weight: Any, found: Found
) -> Fit:
    law, groups = runs.law, runs.groups
    value = np.where(np.isfinite(found.value), found.value, np.inf)
    same = value <= value.min(-1, keepdims=True) * (1 + SAME) + rounding(form, measured, weight)
    share = (same & found.converged).mean(-1)
    known = rounding(form, measured, weight)
    best = np.where(found.converged & _no_more(value, value.min(-1, keepdims=True), known), value, np.inf)
    best = np.where(np.isfinite(best).any(-1, keepdims=True), best, value).argmin(-1)[..., None]
    least = np.take_along_axis(value, best, -1)
    converged = np.take_along_axis(found.converged, best, -1)[..., 0]
    x = np.take_along_axis(found.x, np.broadcast_to(best[None], (*found.x.shape[:3], 1)), -1)[..., 0]

    predicted, derivatives = linearised(form, data, x)
    spread_of = statistics(form, x, predicted, derivatives, measured[:, :, 0], weight[:, :, 0])
    # What is reported is that of the coefficients that are returned, whatever the search says.
    converged = converged & _no_more(spread_of.value, least[..., 0], known[..., 0])
    coefs = records(form, x, fixed)
    flags = _flags(runs, form, converged, spread_of)
    residuals = runs.measured - in_table_order(runs, form, predicted)
    residuals[runs.left_out] = np.nan
    counted = runs.weights > 0
    scores = scores_of(law, (runs.measured - residuals)[counted], runs.measured[counted])

    def per_group(values: np.ndarray, of_parts: Any) -> dict[str, Any]:
        each = np.broadcast_to(values, (len(groups), *values.shape[1:]))
        return {name: of_parts(each[i]) for i, name in enumerate(groups)}

    by_group = dict(zip(groups, coefs, strict=True))
    return Fit(
        law=law.with_groups(by_group, runs.ranges),
        coefs=by_group,
        stderr=dict(zip(groups, records(form, spread_of.stderr, {k: 0 * v for k, v in fixed.items()}), strict=True)),
        covariance={name: spread_of.covariance[i] for i, name in enumerate(groups)},
        untold={name: np.concatenate(spread_of.untold[i]) for i, name in enumerate(groups)},
        names=_all_names(form),
        objective=form.objective,
        value=per_group(spread_of.value, lambda v: float(v.sum())),
        converged=per_group(converged, lambda v: bool(v.all())),
        share=per_group(share, lambda v: float(v.min())),
        rank={name: int(spread_of.rank[i].sum()) for i, name in enumerate(groups)},
        condition={name: float(spread_of.condition[i].max()) for i, name in enumerate(groups)},
        freedom={name: int(spread_of.free[i].min()) for i, name in enumerate(groups)},
        flags=flags,
        residuals=residuals if law.output_shape else residuals[:, 0],
        scores=scores,
        runs=runs,
        form=form,
        fixed=fixed,
    )


def _no_more(value: np.ndarray, least: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    """Whether an objective is another one but for what fits leave of it."""
    found: np.ndarray = value <= least * (1 + LEFT) + rounding
    return found


def records(form: Form, x: np.ndarray, fixed: Mapping[str, np.ndarray]) -> list[Any]:
    """The coefficients of each group, from numbers [number, group, part, ...] with any axes of draws last."""
    fields = dict(fixed) | form.fields(list(np.moveaxis(x, 2, -1)))
    single = x.ndim == 3
    return [
        form.law.coefs(
            **{name: float(v[g]) if single and v.ndim == 1 else np.array(v[g]) for name, v in fields.items()}
        )
        for g in range(x.shape[1])
    ]


def in_table_order(runs: Runs, form: Form, values: np.ndarray) -> np.ndarray:
    """Values [group, part, row] as [run, output]."""
    outputs = len(runs.law.output_columns)
    per_row = np.moveaxis(values, 1, -1) if form.parts > 1 else values.reshape(len(values), -1, outputs)
    found = np.empty((len(runs.group), outputs))
    found[runs.places[runs.present]] = per_row[runs.present]
    return found


def _all_names(form: Form) -> tuple[str, ...]:
    if form.parts == 1:
        return form.names
    return tuple(name for part in range(form.parts) for name in form.names_of(part))


def _flags(runs: Runs, form: Form, converged: np.ndarray, found: Spread) -> dict[str, tuple[str, ...]]:
    """What to know of each group."""
    groups = len(runs.groups)
    used = runs.weights > 0
    group, measured = runs.group[used], runs.measured[used]
    inputs = np.concatenate(
        [np.reshape(getattr(runs.inputs, v.name)[used], (len(group), -1)) for v in variables(runs.law.inputs)], 1
    )
    count = np.bincount(group, minlength=groups)
    low, high = np.full((groups, inputs.shape[1]), np.inf), np.full((groups, inputs.shape[1]), -np.inf)
    np.minimum.at(low, group, inputs)
    np.maximum.at(high, group, inputs)
    negative = np.zeros((groups, measured.shape[1]), int)
    np.add.at(negative, group, measured <= 0)
    first = np.unique(np.concatenate([group[:, None], inputs, measured], 1), axis=0, return_index=True)[1]
    repeats = count - np.bincount(group[first], minlength=groups)
    failed = np.any(~np.broadcast_to(converged, (groups, *converged.shape[1:])), axis=1)

    flags: dict[str, tuple[str, ...]] = {}
    for g, name in enumerate(runs.groups):
        if not count[g]:
            flags[name] = ("there are no runs of it",)
            continue
        said = []
        if failed[g]:
            said.append("the search did not converge")
        if found.free[g].min() <= 0:
            said.append(f"{count[g]} runs for {form.count} coefficients leave nothing to tell errors from")
        on_bound = _named(form, found.bound[:, g])
        if on_bound:
            said.append(f"on a bound: {on_bound}")
        vague = _named(form, found.vague[:, g])
        if vague:
            said.append(f"the runs do not tell: {vague}")
        if count[g] > 1:
            constant = [c for c, alike in zip(runs.law.input_columns, low[g] == high[g], strict=True) if alike]
            if constant:
                said.append(f"the same in all runs: {', '.join(constant)}")
        for column, number in zip(runs.law.output_columns, negative[g], strict=True):
            if 0 < 2 * number < count[g]:  # more of them may be what the law is about
                said.append(f"{column} is not positive in {number} of {count[g]} runs")
        if repeats[g]:
            said.append(f"{repeats[g]} runs repeat another one")
        flags[name] = tuple(said)
    return flags


def _named(form: Form, marked: np.ndarray) -> str:
    """Names of the numbers that are marked, [number, part]."""
    if not marked.any():
        return ""
    names = [form.names_of(q)[i] if form.parts > 1 else form.names[i] for i, q in np.argwhere(marked)]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
