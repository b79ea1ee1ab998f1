"""How well a law predicts runs that it was not fitted to: those of larger scale, above all."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlaws.arguments import check_law
from jaxlaws.fitting.estimation import Fit, fit_runs
from jaxlaws.fitting.runs import Runs, opened, read_runs
from jaxlaws.fitting.scales import WITHIN, chosen, column_of, levels_of, name_of, names_in
from jaxlaws.law import Law, variables
from jaxlaws.scores import Scores, scores_of
from jaxlaws.tables import DataError, numbers

__all__ = [
    "HoldOut",
    "Level",
    "ScaleOut",
    "Steps",
    "coefficient_count",
    "hold_out",
    "hold_out_runs",
    "in_words",
    "leave_one_scale_out",
    "score_steps",
    "skipped_text",
    "steps_of",
]

SMALLEST = 3  # levels that tell a power law and a constant


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HoldOut:
    """Scores of a law on runs that it was not fitted to.

    Attributes:
        fit: The fit to the other runs. It knows the runs that are held out, too, with weight 0.
        held_out: Which runs are held out, a mask.
        scores: Scores on the runs that are held out, over all groups.
        group_scores: The same for each group that has such runs. R2 is minus infinity where a measurement does not
            vary, as where there is only one.
        residuals: Measured less predicted, for the runs that are held out in the order of the table.
        fitted: How many runs the fit had, per group.
    """

    fit: Fit
    held_out: np.ndarray
    scores: Scores
    group_scores: Mapping[str, Scores]
    residuals: np.ndarray
    fitted: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Level:
    """Scores on the runs of one scale.

    Attributes:
        value: The least value of the level.
        rows: The runs that are scored, as positions in the table.
        left_out: Groups with runs of this level that are not scored, as they have too few runs at smaller ones, each
            with the reason.
        fit: The fit to the runs at smaller levels. It knows the others, too, with weight 0.
        fitted: How many runs that are.
        scores: Scores on the runs of the level. R2 is minus infinity where a measurement does not vary.
        residuals: Measured less predicted, for these runs.
    """

    value: float
    rows: np.ndarray
    left_out: Mapping[str, str]
    fit: Fit
    fitted: int
    scores: Scores
    residuals: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ScaleOut:
    """Scores of a law on the runs of each scale, when it is fitted to those of smaller scales.

    Attributes:
        column: The column of the scales.
        levels: The levels that were predicted, from the smallest on.
        skipped: The levels that were not, by their least value, each with the reason.
        scores: Scores on all runs that were predicted.
        group_scores: The same for each group.
        rows: These runs, as positions in the table, level by level.
        residuals: Measured less predicted, for these runs.
    """

    column: str
    levels: tuple[Level, ...]
    skipped: Mapping[float, str]
    scores: Scores
    group_scores: Mapping[str, Scores]
    rows: np.ndarray
    residuals: np.ndarray


def hold_out(
    law: Law,
    table: Any,
    holdout: Any,
    group: str | None = None,
    *,
    weights: Any = None,
    drop_missing: bool = False,
    **options: Any,
) -> HoldOut:
    """Fit a law to some of the runs in a table, and score it on the others.

    Args:
        law: The law.
        table: The runs, as for [`fit`][jaxlaws.fit].
        holdout: Which runs are held out. A condition on columns such as `"num_params>2e9"`, with `>`, `>=`, `<`, `<=`
            or `==` and a number, several joined by `and`. Or `"20% of num_params"`: the fewest of the largest levels of
            a column that have at least 20 % of all runs; values that differ by less than 5 % are one level, so that
            runs of one scale stay together. Or an array of True and False. Columns may be any of the table, also by
            other names of inputs; a name with spaces or signs in it goes in quotes.
        group: The column that holds each run's group, as for `fit`.
        weights: Weight of each run, as for `fit`. Scores do not weigh; runs of weight 0 are neither fitted nor scored.
        drop_missing: Leave out runs that lack a number, as for `fit`.
        **options: The other options of `fit`.

    Returns:
        The fit, and the scores on the runs that are held out.

    Raises:
        DataError: The condition cannot be read, or holds out no runs, or all of them or of a group; or a column is
            missing or holds what cannot be used.

    Example:
        >>> import numpy as np, jaxlaws as jl
        >>> law = jl.laws["sft"]
        >>> size = np.geomspace(200, 4e5, 12)
        >>> noise = 1 + 0.01 * np.random.default_rng(0).normal(size=12)
        >>> runs = {"sft_data_size": size, "sft_loss": (1 + 5 * size**-0.3) * noise}
        >>> found = jl.hold_out(law, runs, "sft_data_size>2e4")
        >>> found.fitted, found.scores.rows
        ({'all_data': 7}, 5)
        >>> bool(abs(found.residuals).max() < 0.1)
        True
    """
    check_law(law)
    named = names_in(holdout) if isinstance(holdout, str) else []
    with opened(table, [law], [*named, group, weights]) as frame:
        runs = read_runs(law, frame, group, weights, drop_missing=drop_missing)
        runs.dropped.warn()
        return hold_out_runs(runs, frame, holdout, **options)


def hold_out_runs(runs: Runs, frame: Any, holdout: Any, **options: Any) -> HoldOut:
    """The same for runs that were read, and the table that they are from."""
    test = chosen(holdout, frame, [runs.law], runs.first_row, runs.left_out) & (runs.weights > 0)
    train = ~test & (runs.weights > 0)
    name = name_of(holdout)
    if not test.any():
        raise DataError(f"{name} holds out only runs of weight 0")
    fitted, held = (np.bincount(runs.group[mask], minlength=len(runs.groups)) for mask in (train, test))
    empty = [repr(g) for g, few, many in zip(runs.groups, fitted, held, strict=True) if many and not few]
    if empty:
        more = f" and {len(empty) - 4} more" if len(empty) > 4 else ""
        kind = "group" if len(empty) == 1 else "groups"
        raise DataError(f"{name} holds out all runs of {kind} {', '.join(empty[:4])}{more}, and leaves none to fit")
    fit = fit_runs(_only(runs, train), **options)
    rows = np.flatnonzero(test)
    residuals = fit.residuals[rows]
    return HoldOut(
        fit=fit,
        held_out=test,
        scores=_scores(runs, rows, residuals),
        group_scores=_by_group(runs, rows, residuals),
        residuals=residuals,
        fitted=dict(zip(runs.groups, fitted.tolist(), strict=True)),
    )


def leave_one_scale_out(
    law: Law,
    table: Any,
    column: str,
    group: str | None = None,
    *,
    smallest: int = SMALLEST,
    within: float = WITHIN,
    weights: Any = None,
    drop_missing: bool = False,
    **options: Any,
) -> ScaleOut:
    """Fit a law to the runs of smaller scales, and score it on those of the next, from scale to scale upwards.

    Args:
        law: The law.
        table: The runs, as for [`fit`][jaxlaws.fit].
        column: The column of the scales: any that holds numbers, also by another name of an input.
        group: The column that holds each run's group, as for `fit`.
        smallest: How many smaller levels a group must have runs at before its runs are predicted; by default 3, since
            fewer do not tell a power law and a constant. There must also be more of them than coefficients.
        within: Values that differ by no more than this share are one level. By default 5 %, since sizes grow a little
            with other things than scale; with 0, or where some value is not positive, every value is a level.
        weights: Weight of each run, as for `fit`. Scores do not weigh; runs of weight 0 are neither fitted nor scored.
        drop_missing: Leave out runs that lack a number, as for `fit`.
        **options: The other options of `fit`.

    Returns:
        Scores for each level, and for all runs that were predicted.

    Raises:
        DataError: No level can be predicted, or a column is missing or holds what cannot be used.

    Example:
        >>> import numpy as np, jaxlaws as jl
        >>> law = jl.laws["sft"]
        >>> size = np.geomspace(200, 4e5, 12)
        >>> noise = 1 + 0.01 * np.random.default_rng(0).normal(size=12)
        >>> runs = {"sft_data_size": size, "sft_loss": (1 + 5 * size**-0.3) * noise}
        >>> found = jl.leave_one_scale_out(law, runs, "sft_data_size", smallest=6)
        >>> [(round(level.value), level.fitted) for level in found.levels]
        [(12635, 6), (25217, 7), (50324, 8), (100432, 9), (200432, 10), (400000, 11)]
        >>> found.scores.rows, found.skipped[200.0]
        (6, 'no runs at smaller levels')
    """
    check_law(law)
    with opened(table, [law], [column, group, weights]) as frame:
        runs = read_runs(law, frame, group, weights, drop_missing=drop_missing)
        runs.dropped.warn()
        steps = steps_of(runs, frame, [law], column, coefficient_count(runs.law, options), smallest, within)
        return score_steps(runs, steps, **options)


def coefficient_count(law: Law, options: Mapping[str, Any]) -> int:
    """How many numbers are fitted in the coefficients of one group."""
    fixed = options.get("fixed") or {}
    return sum(math.prod(law.sizes[axis] for axis in v.shape) for v in variables(law.coefs) if v.name not in fixed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """Which runs are fitted, and which are predicted; and groups that are not, with the reason."""

    value: float
    train: np.ndarray
    test: np.ndarray
    left_out: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps from scale to scale."""

    column: str
    steps: tuple[Step, ...]
    skipped: Mapping[float, str]


def steps_of(
    runs: Runs, frame: Any, laws: Sequence[Law], column: str, coefficients: int, smallest: int, within: float
) -> Steps:
    """The steps from scale to scale, the same for all laws of at most so many coefficients.

    Raises:
        DataError: No level can be predicted.
    """
    if smallest < 1:
        raise ValueError(f"smallest must be at least 1, not {smallest}")
    if not within >= 0:
        raise ValueError(f"within must be at least 0, not {within}")
    column = column_of(frame, laws, column)
    level, least = levels_of(numbers(frame, column, runs.first_row, runs.left_out), within)
    counted = runs.weights > 0
    outputs = runs.measured.shape[1]
    steps, skipped = [], {}
    for i, value in enumerate(map(float, least)):
        train, here = counted & (level < i), counted & (level == i)
        if not here.any():
            continue
        reasons: dict[str, str] = {}
        test = here.copy()
        for g in np.unique(runs.group[here]):
            mine = train & (runs.group == g)
            count, below = int(mine.sum()), len(np.unique(level[mine]))
            if below < smallest or count * outputs <= coefficients:
                reasons[runs.groups[g]] = _too_few(count, below)
                test &= runs.group != g
        if test.any():
            steps.append(Step(value=value, train=train, test=test, left_out=reasons))
        else:
            skipped[value] = next(iter(reasons.values())) if len(set(reasons.values())) == 1 else "too few runs below"
    if not steps:
        have = f"{len(least)} level" + ("s" if len(least) > 1 else "")
        raise DataError(
            f"no level of {column!r} can be predicted from smaller ones: there must be {smallest} of these with more "
            f"than {coefficients} runs in a group, and the table has {have} and {int(counted.sum())} runs"
        )
    return Steps(column=column, steps=tuple(steps), skipped=skipped)


def score_steps(runs: Runs, steps: Steps, **options: Any) -> ScaleOut:
    """Fit a law step by step, and score it."""
    levels = []
    for step in steps.steps:
        fit = fit_runs(_only(runs, step.train), **options)
        rows = np.flatnonzero(step.test)
        residuals = fit.residuals[rows]
        levels.append(
            Level(
                value=step.value,
                rows=rows,
                left_out=step.left_out,
                fit=fit,
                fitted=int(step.train.sum()),
                scores=_scores(runs, rows, residuals),
                residuals=residuals,
            )
        )
    rows = np.concatenate([level.rows for level in levels])
    residuals = np.concatenate([level.residuals for level in levels])
    return ScaleOut(
        column=steps.column,
        levels=tuple(levels),
        skipped=steps.skipped,
        scores=_scores(runs, rows, residuals),
        group_scores=_by_group(runs, rows, residuals),
        rows=rows,
        residuals=residuals,
    )


def in_words(flags: Sequence[Sequence[str]], unit: str) -> list[str]:
    """The flags of several fits, those that many have in common first, with how many fits have them."""
    counts = Counter(flag for each in flags for flag in each)
    return [flag if len(flags) == 1 else f"{flag} (in {n} of {len(flags)} {unit})" for flag, n in counts.most_common()]


def skipped_text(skipped: Mapping[float, str]) -> str:
    """Which levels are not predicted, and why."""
    shown = [f"{value:g} ({reason})" for value, reason in list(skipped.items())[:5]]
    return "not predicted: " + ", ".join(shown) + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else "")


def _too_few(count: int, below: int) -> str:
    if not count:
        return "no runs at smaller levels"
    return f"{count} run{'s' * (count > 1)} at {below} smaller level{'s' * (below > 1)}"


def _only(runs: Runs, train: np.ndarray) -> Runs:
    """The runs with only some of them counted: arrays of the same shapes, for which nothing is compiled again."""
    return dataclasses.replace(runs, weights=np.where(train, runs.weights, 0))


def _scores(runs: Runs, rows: np.ndarray, residuals: np.ndarray) -> Scores:
    """The scores of some runs."""
    measured = runs.measured[rows]
    return scores_of(runs.law, measured - residuals.reshape(measured.shape), measured)


def _by_group(runs: Runs, rows: np.ndarray, residuals: np.ndarray) -> dict[str, Scores]:
    own = runs.group[rows]
    return {runs.groups[g]: _scores(runs, rows[own == g], residuals[own == g]) for g in np.unique(own)}
