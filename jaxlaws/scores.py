"""How well a law predicts measured runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlaws.evaluation import tabulate
from jaxlaws.law import Law
from jaxlaws.tables import DataError, as_frame, missing, numbers, read

__all__ = ["Scores", "evaluate"]


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


def evaluate(law: Law, group: Any, table: Any) -> Scores:
    """Score a law on a table of measured runs: over all rows of all groups, per output.

    Args:
        law: The law.
        group: As for [`predict_table`][jaxlaws.predict_table]: a group, coefficients, the column that holds each row's
            group, or None for the column `group`.
        table: A table with the columns of the inputs and of the outputs (`law.output_columns`).

    Returns:
        The scores.

    Raises:
        DataError: A column is missing or cannot be used, or there are no rows.

    Example:
        >>> import jaxlaws as jl
        >>> runs = {"sft_data_size": [1e3, 1e4, 1e5], "sft_loss": [4.1, 3.4, 2.8]}
        >>> scores = jl.evaluate(jl.laws["sft"], "('gpt2', 'flan')", runs)
        >>> round(scores.r2, 4)
        0.9913
    """
    frame = as_frame(table)
    if not len(frame):
        raise DataError("the table has no rows")
    rows = read(law, frame, group, dtype=np.float64)
    for column in law.output_columns:
        if column not in frame.columns:
            raise missing(frame.columns, column)
    measured = np.stack([numbers(frame, column, 0) for column in law.output_columns], axis=-1).astype(np.float64)
    (predicted,) = tabulate(law, ("value",), rows.group, rows.inputs, rows.count)
    return score(predicted.reshape(measured.shape), measured, law.output_columns)


def score(predicted: np.ndarray, measured: np.ndarray, names: tuple[str, ...]) -> Scores:
    """The scores of predictions of shape (rows, outputs)."""
    error = predicted - measured
    deviation = measured - measured.mean(axis=0)
    nmse = _ratio((error**2).mean(axis=0), (deviation**2).mean(axis=0))
    nmae = _ratio(np.abs(error).mean(axis=0), np.abs(deviation).mean(axis=0))
    per_output = {
        name: {"r2": 1 - float(mse), "nmse": float(mse), "nmae": float(mae)}
        for name, mse, mae in zip(names, nmse, nmae, strict=True)
    }
    return Scores(
        r2=1 - float(nmse.mean()),
        nmse=float(nmse.mean()),
        nmae=float(nmae.mean()),
        rows=len(measured),
        outputs=per_output,
    )


def _ratio(error: np.ndarray, spread: np.ndarray) -> np.ndarray:
    # SLDBench counts a spread of 1e-9 or less as none.
    ratio: np.ndarray = np.divide(error, spread, out=np.full_like(error, np.inf), where=spread > 1e-9)
    return ratio
