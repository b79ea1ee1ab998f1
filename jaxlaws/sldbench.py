"""The list-of-dicts interface of SLDBench, on top of the same laws.

SLDBench (Lin et al. 2025, arXiv:2507.21184) defines a law as a function `law(input_data, group)` from a list of dicts
to a list of dicts. Here is each law of the catalogue as such a function, behaving as its source does: the same names
and aliases, the same defaults for missing keys, floors, errors, and fallback for groups it does not know. Laws
that are not from SLDBench answer in the same way, and know the groups that they have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from jaxlaws.catalogue import laws
from jaxlaws.columns import from_columns
from jaxlaws.evaluation import tabulate
from jaxlaws.law import Law, Var

__all__ = ["law"]

Rows = Sequence[Mapping[str, Any]]

CHUNK = 1 << 14  # rows converted at a time, so that the lists in between stay small


def law(name: str) -> Callable[[Rows, str], list[dict[str, float]]]:
    """A law of the catalogue as a function from a list of dicts to a list of dicts.

    Args:
        name: Name of the law.

    Returns:
        `law(input_data, group)`. Computes in float64 whatever JAX is set to, and leaves that setting alone.

    Errors of the returned function, as in the sources: KeyError for a missing input without a default, TypeError and
    ValueError for a value that is no number, ValueError for one that the law is not defined at.

    Example:
        >>> import jaxlaws as jl
        >>> parallel = jl.sldbench.law("parallel")
        >>> parallel([{"num_params": 1e9, "parallel_size": 8}], "pile")
        [{'loss': 1.94820973...}]
    """
    the_law = laws[name]

    def predict_rows(input_data: Rows, group: str) -> list[dict[str, float]]:
        """Predict the outputs of the law for each row, with the coefficients of a group."""
        coefs = the_law.groups.get(group)
        if coefs is None:
            if the_law.fallback is None:
                raise KeyError(group)
            coefs = the_law.fallback(the_law.groups)
        rows = list(input_data)
        predicted: list[dict[str, float]] = []
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            try:
                inputs = _read(the_law, chunk, start)
            except (KeyError, TypeError, ValueError, OverflowError):
                for row, item in enumerate(chunk, start):  # the first bad row is the one to tell
                    _read(the_law, [item], row)
                raise
            (outputs,) = tabulate(the_law, ("value",), coefs, inputs, len(chunk))
            columns = outputs.reshape(len(chunk), -1).T.tolist()
            predicted += map(dict, map(zip, repeat(the_law.output_columns), zip(*columns)))  # noqa: B905 (slower)
        return predicted

    return predict_rows


def _read(law: Law, rows: Rows, start: int) -> Any:
    """The inputs of the rows, the first of which is row `start`, as float64 arrays."""
    raw = [_column(rows, v, column, start) for v, column in law.columns]
    columns = [np.fromiter(map(float, values), np.float64, len(rows)) for values in raw]
    for (v, column), values in zip(law.columns, columns, strict=True):
        if v.floor is None and (values <= v.above).any():
            row = int(np.argmax(values <= v.above))
            raise ValueError(f"{law.name} is not defined at {column} = {values[row]} (row {start + row})")
    return from_columns(law, columns)


def _column(rows: Rows, v: Var, column: str, start: int) -> list[Any]:
    if v.missing is not None:
        return [row.get(column, v.missing) for row in rows]
    if not v.aliases:
        for i, row in enumerate(rows):
            if column not in row:  # asked for first, since a defaultdict would make one up
                raise KeyError(f"row {start + i} has no {column!r}")
        return [row[column] for row in rows]
    # As in the source: the name, or where that is absent or None the first alias there is.
    values = [row.get(column) for row in rows]
    for i, value in enumerate(values):
        if value is None:
            value = next((rows[i][alias] for alias in v.aliases if alias in rows[i]), None)
            if value is None:
                raise KeyError(f"row {start + i} has no {column!r} (nor {', '.join(map(repr, v.aliases))})")
            values[i] = value
    return values
