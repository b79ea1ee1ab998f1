"""Several laws on the same runs: which one predicts best, and which one is worth its coefficients."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxlaws.arguments import check_kind, check_law
from jaxlaws.catalogue import laws as catalogue
from jaxlaws.fitting.estimation import Fit, fit_runs
from jaxlaws.fitting.holdout import (
    SMALLEST,
    HoldOut,
    ScaleOut,
    coefficient_count,
    hold_out_runs,
    in_words,
    score_steps,
    skipped_text,
    steps_of,
)
from jaxlaws.fitting.objectives import OBJECTIVES
from jaxlaws.fitting.runs import Runs, opened, read_runs, sized
from jaxlaws.fitting.scales import WITHIN, chosen, names_in
from jaxlaws.law import Law
from jaxlaws.tables import DataError, find

__all__ = ["Compared", "Comparison", "aicc", "compare", "compare_frame"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """One law of a comparison.

    Attributes:
        name: The law's name, or its title where laws have the same name.
        law: The law.
        fit: The fit to all runs.
        held_out: Fits to some of the runs and scores on others, if asked for.
        r2: R2 on the runs that are held out, or NaN.
        error: Mean absolute error on these, in the unit of the output, or NaN.
        r2_of_fit: R2 of the fit on all runs, which it was fitted to.
        coefficients: How many numbers were fitted, over all groups.
        aicc: Of the fit to all runs; see [`aicc`][jaxlaws.aicc].
        flags: What to know before one relies on the fits, in words, over all groups; `fit.flags` has those of each.
    """

    name: str
    law: Law
    fit: Fit
    held_out: HoldOut | ScaleOut | None
    r2: float
    error: float
    r2_of_fit: float
    coefficients: int
    aicc: float
    flags: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison:
    """Laws on the same runs, the best one first. Prints as a table.

    Attributes:
        laws: The laws, by R2 on the runs that are held out, or by AICc if there are none.
        objective: What all of them minimise.
        holdout: What is held out, in words; empty if nothing is.
        rows: How many runs there are.
        held_out: How many of them are predicted.
        skipped: For scales of a column, those that are not predicted, by their least value, each with the reason.
    """

    laws: tuple[Compared, ...]
    objective: str
    holdout: str
    rows: int
    held_out: int
    skipped: dict[float, str]

    def table(self) -> list[dict[str, Any]]:
        """A dict per law, the best one first, ready for any kind of table."""
        return [
            {
                "law": law.name,
                "r2_held_out": law.r2,
                "error_held_out": law.error,
                "r2": law.r2_of_fit,
                "coefficients": law.coefficients,
                "aicc": law.aicc,
                "flags": list(law.flags),
            }
            for law in self.laws
        ]

    @property
    def heading(self) -> str:
        """What was compared, in a line."""
        held = f"; {self.held_out} held out: {self.holdout}" if self.held_out else ""
        return f"{self.rows} runs, objective {self.objective!r}{held}"

    @property
    def columns(self) -> dict[str, list[str]]:
        """The table as text, by columns."""
        found = {"law": [law.name for law in self.laws]}
        if self.held_out:
            found["R2 held out"] = [f"{law.r2:.6f}" for law in self.laws]
            found["error held out"] = [f"{law.error:.3g}" for law in self.laws]
        found["R2 of fit"] = [f"{law.r2_of_fit:.6f}" for law in self.laws]
        found["coefficients"] = [str(law.coefficients) for law in self.laws]
        found["AICc"] = [f"{law.aicc:.1f}" for law in self.laws]
        return found

    @property
    def notes(self) -> list[str]:
        """What to know of it, in lines."""
        skipped = [skipped_text(self.skipped)] if self.skipped else []
        return skipped + [f"{law.name}: {flag}" for law in self.laws for flag in law.flags]

    def __repr__(self) -> str:
        from jaxlaws.display import print_table  # which loads what a result that is not shown does not need

        text = io.StringIO()
        print_table(list(self.columns), list(zip(*self.columns.values(), strict=True)), file=text)
        return "\n".join([self.heading, *text.getvalue().splitlines(), *self.notes])


def compare(
    laws: Iterable[Law | str],
    table: Any,
    group: str | None = None,
    *,
    holdout: Any = None,
    by: str | None = None,
    objective: str = "squared",
    smallest: int = SMALLEST,
    within: float = WITHIN,
    weights: Any = None,
    drop_missing: bool = False,
    starts: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Fit several laws to the same runs, and tell which one predicts best.

    All laws are fitted with the same objective, and predict the same runs.

    Args:
        laws: The laws, or their names. They must predict the same columns.
        table: The runs, as for [`fit`][jaxlaws.fit], with the columns of all laws.
        group: The column that holds each run's group, as for `fit`.
        holdout: Which runs the laws are not fitted to, and scored on, as for [`hold_out`][jaxlaws.hold_out].
        by: Or the column of the scales that are predicted one by one from smaller ones, as for
            [`leave_one_scale_out`][jaxlaws.leave_one_scale_out]: those for which the law with the most coefficients has
            enough runs. With neither, laws are compared by AICc only.
        objective: What is minimised for every law, whatever it has as its own; as for `fit`.
        smallest: As for `leave_one_scale_out`.
        within: As for `leave_one_scale_out`.
        weights: As for `fit`.
        drop_missing: Leave out runs that lack a number that one of the laws needs, as for `fit`.
        starts: How many starts each search has; by default as for [`fit`][jaxlaws.fit].
        seed: Another seed gives other starts.

    Returns:
        The laws, the best one first.

    Raises:
        DataError: The table lacks a column of a law, or holds what cannot be used; laws predict different columns; or
            as for `hold_out` and `leave_one_scale_out`.
        UnknownNameError: There is no law of a name.

    Example:
        >>> import numpy as np, jaxlaws as jl
        >>> size = np.geomspace(200, 4e5, 12)
        >>> noise = 1 + 0.01 * np.random.default_rng(0).normal(size=12)
        >>> runs = {"sft_data_size": size, "sft_loss": (1 + 5 * size**-0.3) * noise}
        >>> jl.compare(["sft"], runs, holdout="sft_data_size>2e4")
        12 runs, objective 'squared'; 5 held out: sft_data_size>2e4
        law   R2 held out   error held out   R2 of fit   coefficients    AICc
        ─────────────────────────────────────────────────────────────────────
        sft      0.729496           0.0247    0.999157              3   -67.2
    """
    check_kind(laws, (str, Law, Iterable), "a list of laws")
    found = [laws] if isinstance(laws, (str, Law)) else list(laws)
    chosen = [catalogue[law] if isinstance(law, str) else law for law in found]
    for law in chosen:
        check_law(law)
    named = names_in(holdout) if isinstance(holdout, str) else []
    with opened(table, chosen, [*named, by, group, weights]) as frame:
        return compare_frame(
            chosen,
            frame,
            group,
            holdout=holdout,
            by=by,
            objective=objective,
            smallest=smallest,
            within=within,
            weights=weights,
            drop_missing=drop_missing,
            starts=starts,
            seed=seed,
        )


def compare_frame(
    laws: Sequence[Law],
    frame: Any,
    group: str | None = None,
    *,
    holdout: Any = None,
    by: str | None = None,
    smallest: int = SMALLEST,
    within: float = WITHIN,
    weights: Any = None,
    drop_missing: bool = False,
    first_row: int = 0,
    **options: Any,
) -> Comparison:
    """The same for a table that was opened; errors count rows from `first_row`."""
    if holdout is not None and by is not None:
        raise ValueError("holdout or by must be given, not both")
    if not laws:
        raise ValueError("there must be at least one law")
    for i, law in enumerate(laws):
        check_law(law)
        if law in laws[:i]:
            raise ValueError(f"{law.name} is given twice")
    given = [pair for law in laws for pair in sized(law, frame.columns).columns]
    needed = [find(frame, v, c) for v, c in given if not {c, *v.aliases}.isdisjoint(frame.columns)]
    all_runs = [_read(law, frame, group, weights, drop_missing, needed, first_row) for law in laws]
    all_runs[0].dropped.warn()
    first = all_runs[0].law
    for runs in all_runs:
        if runs.law.output_columns != first.output_columns:
            said = (f"{law.name} {', '.join(law.output_columns)}" for law in (first, runs.law))
            raise DataError("laws that predict different columns cannot be compared: " + ", ".join(said))
    mask = steps = None
    if holdout is not None:
        mask = chosen(holdout, frame, laws, first_row, all_runs[0].left_out)
    elif by is not None:
        most = max(coefficient_count(runs.law, options) for runs in all_runs)
        steps = steps_of(all_runs[0], frame, laws, by, most, smallest, within)
    found = []
    for runs, name in zip(all_runs, _names(laws), strict=True):
        held_out: HoldOut | ScaleOut | None = None
        if mask is not None:
            held_out = hold_out_runs(runs, frame, mask, **options)
        elif steps is not None:
            held_out = score_steps(runs, steps, **options)
        found.append(_compared(name, fit_runs(runs, **options), held_out))
    found.sort(key=_order)
    what = "" if holdout is None else holdout if isinstance(holdout, str) else "a mask"
    return Comparison(
        laws=tuple(found),
        objective=found[0].fit.objective,
        holdout=what if by is None else f"each scale of {by} from smaller ones",
        rows=found[0].fit.scores.rows,
        held_out=0 if found[0].held_out is None else found[0].held_out.scores.rows,
        skipped={} if steps is None else dict(steps.skipped),
    )


def aicc(fit: Fit) -> float:
    """Akaike's information criterion for small samples (Hurvich and Tsai 1989): the less, the better.

    It is -2 log L + 2 k + 2 k (k + 1) / (n - k - 1) with the likelihood L of the errors that the objective takes (the
    squared ones, the relative ones, or those of the logarithm), n measurements and k numbers: the coefficients of all
    groups, and the scale of the errors, one for all groups and outputs. Errors are normal, as for R's `logLik`: for
    weights of 1, -2 log L = n log(2 pi RSS / n) + n. For "huber_log", their density falls as the exponential of minus
    Huber's function over the scale, which is normal within delta = 1e-3 and exponential beyond. Runs of weight w have
    a scale that is smaller by 1 / w. The scale is that of the greatest likelihood.

    Compare it only between fits to the same measurements with the same objective.

    Args:
        fit: The fit.

    Returns:
        The criterion. Infinite without more than k + 1 measurements; minus infinity where every run is met.

    Example:
        >>> import numpy as np, jaxlaws as jl
        >>> size = np.geomspace(200, 4e5, 12)
        >>> noise = 1 + 0.01 * np.random.default_rng(0).normal(size=12)
        >>> fit = jl.fit(jl.laws["sft"], {"sft_data_size": size, "sft_loss": (1 + 5 * size**-0.3) * noise})
        >>> rss, n, k = (fit.residuals**2).sum(), 12, 4
        >>> expected = n * np.log(2 * np.pi * rss / n) + n + 2 * k + 2 * k * (k + 1) / (n - k - 1)
        >>> bool(abs(jl.aicc(fit) - expected) < 1e-9)
        True
    """
    check_kind(fit, Fit, "a fit, as jl.fit gives one,")
    runs = fit.runs
    counted = runs.weights > 0
    weights = np.repeat(runs.weights[counted], runs.measured.shape[1])
    values = [fit.value[runs.groups[g]] for g in np.unique(runs.group[counted])]
    total = values[0] if fit.form.shared else math.fsum(values)
    k, n = _fitted_count(fit) + 1, len(weights)
    if n - k - 1 <= 0 or not math.isfinite(total):
        return math.inf
    return _deviance(total, weights, OBJECTIVES[fit.objective].delta) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def _fitted_count(fit: Fit) -> int:
    """How many coefficients were fitted in all groups that have runs."""
    form, runs = fit.form, fit.runs
    groups = len(np.unique(runs.group[runs.weights > 0]))
    return form.parts * (form.shared_count + groups * (form.count - form.shared_count))


def _deviance(total: float, weights: np.ndarray, delta: float) -> float:
    """-2 log L at the scale s of the greatest likelihood, for densities exp(-w rho / s) / Z(s / w)."""
    if total <= 0:
        return -math.inf
    kinds, counts = np.unique(weights, return_counts=True)

    def at(log_scale: float) -> float:
        s = math.exp(log_scale)
        logs = math.fsum(n * math.log(_integral(s / w, delta)) for w, n in zip(kinds, counts, strict=True))
        return 2 * logs + 2 * total / s

    # The mean of w rho is s / 2 for normal errors and s for exponential ones. Golden sections.
    mean, ratio = total / len(weights), (math.sqrt(5) - 1) / 2
    low, high = math.log(mean / 2), math.log(4 * mean)
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if at(left) < at(right) else (left, high)
    return at((low + high) / 2)


def _integral(s: float, delta: float) -> float:
    """The integral of exp(-rho / s) for Huber's function rho; with infinite delta, for half of the square."""
    inside = math.sqrt(2 * math.pi * s) * math.erf(delta / math.sqrt(2 * s))
    return inside + 2 * s / delta * math.exp(-(delta**2) / (2 * s))


def _read(
    law: Law, frame: Any, group: str | None, weights: Any, drop_missing: bool, needed: Any, first_row: int
) -> Runs:
    try:
        return read_runs(law, frame, group, weights, drop_missing=drop_missing, also=needed, first_row=first_row)
    except DataError as error:
        raise type(error)(f"{law.name}: {error}") from None


def _names(laws: Sequence[Law]) -> list[str]:
    names = [law.name for law in laws]
    return [law.title if names.count(law.name) > 1 else law.name for law in laws]


def _compared(name: str, fit: Fit, held_out: HoldOut | ScaleOut | None) -> Compared:
    flags = in_words([fit.flags[g] for g in fit.runs.groups], "groups")
    r2 = error = math.nan
    if held_out is not None:
        fits = [held_out.fit] if isinstance(held_out, HoldOut) else [level.fit for level in held_out.levels]
        r2, error = held_out.scores.r2, float(np.abs(held_out.residuals).mean())
        lost = sum(not all(each.converged[g] for g in held_out.group_scores) for each in fits)
        if lost:
            flags.append(f"the search did not converge in {lost} of {len(fits)} fits for runs held out")
    return Compared(
        name=name,
        law=fit.law,
        fit=fit,
        held_out=held_out,
        r2=r2,
        error=error,
        r2_of_fit=fit.scores.r2,
        coefficients=_fitted_count(fit),
        aicc=aicc(fit),
        flags=tuple(flags),
    )


def _order(law: Compared) -> tuple[bool, float, float]:
    """What comes first: what predicts best, or else what has the least AICc; what is not known last."""
    if law.held_out is None:
        return math.isnan(law.aicc), law.aicc, 0.0
    return math.isnan(law.r2), -law.r2, law.error
