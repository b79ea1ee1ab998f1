"""The list-of-dicts interface of SLDBench, on top of the same laws.

SLDBench (Lin et al. 2025, arXiv:2507.21184) defines a law as a function `law(input_data, group)` from a list of dicts
to a list of dicts. Here is each law of the catalogue as such a function, behaving as its source does: the same names
and aliases, the same defaults for missing keys, floors, errors, and fallback for groups it does not know. Laws
that are not from SLDBench answer in the same way, and know the groups that they have.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from jaxlaws.catalogue import laws
from jaxlaws.columns import from_columns
from jaxlaws.evaluation import tabulate
from jaxlaws.fitting.form import linear_fields
from jaxlaws.fitting.linear import refit_linear
from jaxlaws.fitting.runs import ALONE, Runs, read_runs
from jaxlaws.fitting.storage import read_coefs
from jaxlaws.law import Law, Var
from jaxlaws.tables import DataError, read_table

__all__ = ["law"]

Rows = Sequence[Mapping[str, Any]]

CHUNK = 1 << 14  # rows converted at a time, so that the lists in between stay small


def law(name: str | Law, coefs: Any = None, runs: Any = None) -> Callable[[Rows, str], list[dict[str, float]]]:
    """A law as a function from a list of dicts to a list of dicts.

    Args:
        name: Name of the law, or the law.
        coefs: Groups in place of those of the law: coefficients by name, such as `coefs` of a fit, or the path of a
            file that `fit.save` or `jaxlaws fit -o` wrote.
        runs: Measured runs, as for [`fit`][jaxlaws.fit]: a table, or the path of one, which may be a folder that
            Hugging Face `datasets` saved. As in the source of `data_constrained`, the coefficients that the law is
            linear in are then fitted to the runs of a group when it is first asked for, by least squares, and to all
            runs for a group that is not among them; the other coefficients stay. And as there, nothing is fitted if
            there is nothing at that path.

    Returns:
        `law(input_data, group)`. Computes in float64 whatever JAX is set to, and leaves that setting alone.

    Raises:
        DataError: The file of coefficients or the table of runs cannot be used.
        ValueError: The law is linear in none of its coefficients, so that there is nothing to fit to runs.

    Errors of the returned function, as in the sources: KeyError for a missing input without a default, TypeError and
    ValueError for a value that is no number, ValueError for one that the law is not defined at.

    Example:
        >>> import jaxlaws as jl
        >>> parallel = jl.sldbench.law("parallel")
        >>> parallel([{"num_params": 1e9, "parallel_size": 8}], "pile")
        [{'loss': 1.94820973...}]
        >>> runs = {"sft_data_size": [1e3, 1e4, 1e5], "sft_loss": [4.1, 3.4, 2.8]}
        >>> jl.sldbench.law("sft", runs=runs)([{"sft_data_size": 1e6}], "('gpt2', 'flan')")
        [{'sft_loss': 2.3336...}]
    """
    the_law = name if isinstance(name, Law) else laws[name]
    groups = the_law.groups if coefs is None else _groups(the_law, coefs)
    the_law = _sized(the_law, groups)

    def known(group: str) -> Any:
        """The coefficients of a group, as the source of the law chooses them."""
        found = groups.get(group)
        if found is None:
            if the_law.fallback is None:
                raise KeyError(group)
            try:
                found = the_law.fallback(groups)
            except KeyError:  # for the group that stands in for others
                raise KeyError(group) from None
        return found

    chosen: Callable[[str], Any] = known
    if runs is not None and not _is_missing(runs):
        the_law, chosen = _refitted(the_law, known, groups, runs)

    def predict_rows(input_data: Rows, group: str) -> list[dict[str, float]]:
        """Predict the outputs of the law for each row, with the coefficients of a group."""
        coefs = chosen(group)
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


def _groups(law: Law, coefs: Any) -> Mapping[str, Any]:
    """Groups of the caller's own."""
    if isinstance(coefs, (str, os.PathLike)):
        return read_coefs(coefs, law)
    if not isinstance(coefs, Mapping) or not coefs:
        raise TypeError(f"{law.name}: coefs must be the path of a file, or coefficients by group, not {coefs!r}")
    for group, values in coefs.items():
        if not isinstance(values, law.coefs):
            raise TypeError(f"{law.name}: coefs of group {group!r} must be {law.coefs}, not {type(values).__name__}")
    return dict(coefs)


def _sized(law: Law, groups: Mapping[str, Any]) -> Law:
    """The law, with vectors as long as those of these groups."""
    own = dataclasses.replace(law, groups=groups)
    return law if own.sizes == law.sizes else own


def _is_missing(runs: Any) -> bool:
    return isinstance(runs, (str, os.PathLike)) and not os.path.exists(runs)


def _refitted(
    law: Law, known: Callable[[str], Any], groups: Mapping[str, Any], runs: Any
) -> tuple[Law, Callable[[str], Any]]:
    """The law for these runs, and what finds the coefficients of a group."""
    linear = linear_fields(law)
    if not linear:
        raise ValueError(f"{law.name} is linear in none of its coefficients; there is nothing to fit to runs")
    measured = _runs(law, runs)
    found: dict[tuple[str | None, str | None], Any] = {}

    def refitted(group: str) -> Any:
        own = group if group in measured.groups else None
        key = own, group if group in groups else None  # groups that are alike in both are alike
        if key not in found:
            found[key] = refit_linear(_of_group(measured, own), known(group))
        return found[key]

    return measured.law, refitted


def _runs(law: Law, runs: Any) -> Runs:
    if not isinstance(runs, (str, os.PathLike)):
        return read_runs(law, runs)
    table = read_table(runs)
    try:
        return read_runs(law, table)
    except DataError as error:
        raise DataError(f"{os.fspath(runs)}: {error}") from None


def _of_group(runs: Runs, group: str | None) -> Runs:
    """The runs of one group, or all runs, as those of one group."""
    mine = runs if group is None else runs.select(runs.group == runs.groups.index(group))
    return dataclasses.replace(mine, groups=(ALONE,), group=np.zeros(len(mine.group), int))


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
