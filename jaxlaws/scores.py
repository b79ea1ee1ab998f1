"""How well a law predicts measured runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlaws.arguments import check_law
from jaxlaws.evaluation import tabulate
from jaxlaws.law import Law
from jaxlaws.proportions import Normalised, ProportionsWarning
from jaxlaws.tables import (
    DataError,
    LeftOut,
    as_frame,
    find,
    hinted,
    incomplete,
    input_names,
    measurements,
    missing,
    read,
)
from jaxlaws.warning import warn_caller

__all__ = ["Scores", "Tally", "evaluate", "scores_of"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of predictions, as SLDBench (Lin et al. 2025, arXiv:2507.21184) defines them.

    Attributes:
        r2: 1 - nmse.
        nmse: Mean squared error over the variance of the measurements; mean over outputs.
        nmae: Mean absolute error over the mean absolute deviation of the measurements; mean over outputs.
        rows: Number of rows.
        outputs: The same three scores per output column. They are infinite where a measurement does not vary.
    """

    r2: float
    nmse: float
    nmae: float
    rows: int
    outputs: Mapping[str, Mapping[str, float]]


def evaluate(law: Law, group: Any, table: Any, *, drop_missing: bool = False) -> Scores:
    """Score a law on a table of measured runs: over all rows of all groups, per output.

    Args:
        law: The law.
        group: As for [`predict_table`][jaxlaws.predict_table]: a group, coefficients, the column that holds each row's
            group, or None for the column `group`.
        table: A table with the columns of the inputs and of the outputs (`law.output_columns`).
        drop_missing: Leave out runs that lack a number, with a warning that counts them.

    Returns:
        The scores.

    Raises:
        DataError: A column is missing or cannot be used, or there are no rows.

    Warns:
        MissingWarning: Runs were left out.

    Example:
        >>> import jaxlaws as jl
        >>> runs = {"sft_data_size": [1e3, 1e4, 1e5], "sft_loss": [4.1, 3.4, 2.8]}
        >>> scores = jl.evaluate(jl.laws["sft"], "('gpt2', 'flan')", runs)
        >>> round(scores.r2, 4)
        0.9913
    """
    check_law(law)
    tally = Tally(law, drop_missing)
    used = {*input_names(law), *law.output_columns, "group", *([group] if isinstance(group, str) else [])}
    tally.add(as_frame(table, used), group)
    scores = tally.scores()
    tally.left_out.warn()
    return scores


class Tally:
    """The errors of a law on a table, added up over batches of it.

    Attributes:
        left_out: The runs that were left out.
    """

    def __init__(self, law: Law, drop_missing: bool = False):
        self._law, self._drop_missing = law, drop_missing
        self.left_out = LeftOut()
        self._squared = self._absolute = np.zeros(len(law.output_columns))
        self._measured: list[np.ndarray] = []
        self._normalised = Normalised()

    def add(self, frame: Any, group: Any, first_row: int = 0) -> int:
        """Add the rows of a table, and return how many they are."""
        law = self._law
        for column in law.output_columns:
            if column not in frame.columns:
                raise missing(frame.columns, column)
        used = np.ones(len(frame), bool)
        if self._drop_missing:
            inputs = [find(frame, v, column) for v, column in law.columns]
            gaps = incomplete(frame, [*inputs, *law.output_columns], first_row)
            used = ~np.logical_or.reduce([~used, *gaps.values()])
            self.left_out.add(gaps, ~used)
            if not used.any():
                return len(frame)
        with hinted():
            rows = read(law, frame, group, dtype=np.float64, first_row=first_row, unused=~used, tally=self._normalised)
            measured = measurements(law, frame, first_row, ~used)[used]
        (predicted,) = tabulate(law, ("value",), rows.group, rows.inputs, rows.count)
        error = predicted.reshape(len(frame), len(law.output_columns))[used] - measured
        self._squared = self._squared + (error**2).sum(axis=0)
        self._absolute = self._absolute + np.abs(error).sum(axis=0)
        self._measured.append(measured)
        return rows.count

    def scores(self) -> Scores:
        """The scores of all rows added."""
        measured = np.concatenate(self._measured) if self._measured else np.zeros((0, 1))
        if not len(measured):
            raise DataError(str(self.left_out) if self.left_out.rows else "the table has no rows")
        if self._normalised.rows:
            warn_caller(self._normalised, ProportionsWarning)
        return _scores(self._law, self._squared, self._absolute, measured)


def scores_of(law: Law, predicted: np.ndarray, measured: np.ndarray) -> Scores:
    """The scores of predictions [row, output]."""
    error = predicted - measured
    return _scores(law, (error**2).sum(axis=0), np.abs(error).sum(axis=0), measured)


def _scores(law: Law, squared: np.ndarray, absolute: np.ndarray, measured: np.ndarray) -> Scores:
    deviation = measured - measured.mean(axis=0)
    nmse = _ratio(squared, (deviation**2).sum(axis=0), len(measured))
    nmae = _ratio(absolute, np.abs(deviation).sum(axis=0), len(measured))
    per_output = {
        name: {"r2": 1 - float(mse), "nmse": float(mse), "nmae": float(mae)}
        for name, mse, mae in zip(law.output_columns, nmse, nmae, strict=True)
    }
    return Scores(
        r2=1 - float(nmse.mean()),
        nmse=float(nmse.mean()),
        nmae=float(nmae.mean()),
        rows=len(measured),
        outputs=per_output,
    )


def _ratio(error: np.ndarray, spread: np.ndarray, rows: int) -> np.ndarray:
    # SLDBench counts a mean spread of 1e-9 or less as none.
    ratio: np.ndarray = np.divide(error, spread, out=np.full_like(error, np.inf), where=spread / rows > 1e-9)
    return ratio
