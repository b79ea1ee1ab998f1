"""Measured runs as arrays: one row of numbers per run, padded to the same number of rows in every group."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxlaws.law import Law, Var, variables
from jaxlaws.programs import roomy
from jaxlaws.tables import DataError, as_frame, missing, numbers, read_inputs, read_table, rows_text

__all__ = ["ALONE", "Runs", "read_runs", "sized"]

ALONE = "all_data"  # the group of a table that has no column of groups


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runs:
    """Measured runs of one or more groups.

    Attributes:
        law: The law, with the sizes that the table has.
        groups: Names of the groups, in the order in which they come.
        group: The group of each run, as a position in `groups`, [run].
        inputs: Inputs, [run, ...].
        measured: Outputs, [run, output].
        weights: Weights, [run].
        first_row: What errors call the first run.
    """

    law: Law
    groups: tuple[str, ...]
    group: np.ndarray
    inputs: Any
    measured: np.ndarray
    weights: np.ndarray
    first_row: int = 0

    @functools.cached_property
    def places(self) -> np.ndarray:
        """The runs of each group, [group, row]; the first one of the group again where it has no more.

        There is some room at the end, so that tables of different lengths share compiled programs.
        """
        order = np.argsort(self.group, kind="stable")
        counts = np.bincount(self.group, minlength=len(self.groups))
        starts = np.cumsum(counts) - counts
        row = np.arange(roomy(int(counts.max(initial=0))))
        places: np.ndarray = order[starts[:, None] + np.where(row < counts[:, None], row, 0)]
        return places

    @functools.cached_property
    def present(self) -> np.ndarray:
        """Whether there is a run at each of `places`."""
        counts = np.bincount(self.group, minlength=len(self.groups))
        present: np.ndarray = np.arange(self.places.shape[1]) < counts[:, None]
        return present

    def padded(self, values: Any) -> Any:
        """Arrays [run, ...] as [group, row, ...]."""
        return jax.tree.map(lambda x: np.asarray(x)[self.places], values)

    def select(self, chosen: np.ndarray) -> Runs:
        """Some of the runs, of all groups."""
        return dataclasses.replace(
            self,
            group=self.group[chosen],
            inputs=jax.tree.map(lambda x: x[chosen], self.inputs),
            measured=self.measured[chosen],
            weights=self.weights[chosen],
        )


def read_runs(law: Law, table: Any, group: str | None = None, weights: Any = None, *, first_row: int = 0) -> Runs:
    """The runs in a table, checked.

    Args:
        law: The law.
        table: A table of any kind, or the path of a file or folder that holds one.
        group: The column of groups; by default `group` where there is one.
        weights: Weights per run, or the column that holds them; by default 1.
        first_row: What errors call the first row.

    Raises:
        DataError: A column is missing or holds what cannot be used.
    """
    if isinstance(table, (str, os.PathLike)):
        table = read_table(os.fspath(table))
    frame = as_frame(table)
    if not len(frame):
        raise DataError("the table has no rows")
    law = sized(law, frame.columns)
    inputs = read_inputs(law, frame, dtype=np.float64, first_row=first_row)[1]
    for column in law.output_columns:
        if column not in frame.columns:
            raise missing(frame.columns, column)
    measured = np.stack([numbers(frame, column, first_row) for column in law.output_columns], -1).astype(np.float64)
    for column, values in zip(law.output_columns, measured.T, strict=True):
        if np.isinf(values).any():
            raise DataError(f"column {column!r} is infinite: {rows_text(np.isinf(values), first_row)}")
    names, ids = _groups(frame, group, first_row)
    return Runs(
        law=law,
        groups=names,
        group=ids,
        inputs=inputs,
        measured=measured,
        weights=_weights(frame, weights, first_row),
        first_row=first_row,
    )


def _groups(frame: Any, group: str | None, first_row: int) -> tuple[tuple[str, ...], np.ndarray]:
    if group is None and "group" not in frame.columns:
        return (ALONE,), np.zeros(len(frame), int)
    column = group or "group"
    if column not in frame.columns:
        raise missing(frame.columns, column)
    series = frame[column]
    if series.null_count():
        raise DataError(f"column {column!r} has no value: {rows_text(series.is_null().to_numpy(), first_row)}")
    empty = np.array([name == "" for name in series.to_list()])
    if empty.any():
        raise DataError(f"column {column!r} has no value: {rows_text(empty, first_row)}")
    position: dict[str, int] = {}
    ids = [position.setdefault(str(name), len(position)) for name in series.to_list()]
    return tuple(position), np.asarray(ids)


def _weights(frame: Any, weights: Any, first_row: int) -> np.ndarray:
    if weights is None:
        return np.ones(len(frame))
    if isinstance(weights, str):
        if weights not in frame.columns:
            raise missing(frame.columns, weights)
        name, found = f"column {weights!r}", numbers(frame, weights, first_row).astype(np.float64)
    else:
        name, found = "weights", np.asarray(weights, np.float64)
        if found.shape != (len(frame),):
            raise DataError(f"weights must be one number per row, {len(frame)} of them; they have shape {found.shape}")
    bad = ~(np.isfinite(found) & (found >= 0))
    if bad.any():
        raise DataError(f"{name} must be at least 0 and finite: {rows_text(bad, first_row)}")
    if not found.any():
        raise DataError(f"{name} must not be 0 everywhere")
    return found


def sized(law: Law, columns: Any) -> Law:
    """The law with as many elements of each vector as a table has columns for."""
    sizes: dict[str, int] = {}
    for v in (*variables(law.inputs), *variables(law.outputs)):
        if v.shape:
            sizes[v.shape[0]] = max(sizes.get(v.shape[0], 0), _count(v, columns))
    return _resized(law, tuple(sizes.items()))


def _count(v: Var, columns: Any) -> int:
    count = 0
    while v.columns.format(count + 1) in columns:
        count += 1
    return count


@functools.cache
def _resized(law: Law, sizes: tuple[tuple[str, int], ...]) -> Law:
    """The law for vectors of these sizes, where they are given and not those that it has."""
    if law.groups and all(count in (0, law.sizes[axis]) for axis, count in sizes):
        return law
    known: Mapping[str, int] = dict(sizes)
    fields = {v.name: np.zeros(tuple(known[axis] for axis in v.shape)) for v in variables(law.coefs)}
    return dataclasses.replace(law, groups={ALONE: law.coefs(**fields)})
