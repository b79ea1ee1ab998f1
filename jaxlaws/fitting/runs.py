"""Measured runs as arrays: one row of numbers per run, padded to the same number of rows in every group."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxlaws.law import Law, Var, variables
from jaxlaws.programs import roomy
from jaxlaws.ranges import value_of
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
    numbers,
    read_inputs,
    read_table,
    rows_text,
)

__all__ = ["ALONE", "Runs", "opened", "read_runs", "sized"]

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
        left_out: Runs without a value, of weight 0, which have the numbers of another run, [run]; or False, for none.
        dropped: Those of them that had another weight.
        first_row: What errors call the first run.
    """

    law: Law
    groups: tuple[str, ...]
    group: np.ndarray
    inputs: Any
    measured: np.ndarray
    weights: np.ndarray
    left_out: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((), bool))
    dropped: LeftOut = dataclasses.field(default_factory=LeftOut)
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

    @functools.cached_property
    def ranges(self) -> dict[str, dict[str, tuple[Any, Any] | None]]:
        """Between which values the runs of each group that count have the inputs, and the ratios that the law names."""
        found: dict[str, dict[str, tuple[Any, Any] | None]] = {}
        for g, name in enumerate(self.groups):
            mine = (self.group == g) & (self.weights > 0)
            values = {key: value_of(self.inputs, key)[mine] for key in (*vars(self.inputs), *self.law.ratios)}
            found[name] = {
                key: (v.min(axis=0).tolist(), v.max(axis=0).tolist()) if mine.any() else None
                for key, v in values.items()
            }
        return found

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
            left_out=np.broadcast_to(self.left_out, self.group.shape)[chosen],
        )


def read_runs(
    law: Law,
    table: Any,
    group: str | None = None,
    weights: Any = None,
    *,
    drop_missing: bool = False,
    also: Iterable[str] = (),
    first_row: int = 0,
) -> Runs:
    """The runs in a table, checked.

    Args:
        law: The law.
        table: A table of any kind, or the path of a file or folder that holds one.
        group: The column of groups; by default `group` where there is one.
        weights: Weights per run, or the column that holds them; by default 1.
        drop_missing: Leave out runs that lack a number: they get weight 0. Runs of weight 0 may lack any.
        also: Columns of other numbers that runs must not lack.
        first_row: What errors call the first row.

    Raises:
        DataError: A column is missing or holds what cannot be used.
    """
    with opened(table, [law], [group, weights]) as frame, hinted():
        if not len(frame):
            raise DataError("the table has no rows")
        law = sized(law, frame.columns)
        columns = [find(frame, v, column) for v, column in law.columns]
        for column in law.output_columns:
            if column not in frame.columns:
                raise missing(frame.columns, column)
        weight = _weights(frame, weights, first_row, drop_missing)
        gaps = incomplete(frame, {**dict.fromkeys([*columns, *law.output_columns, *also])}, first_row)
        if np.isnan(weight).any():
            gaps[weights if isinstance(weights, str) else "weights"] = np.isnan(weight)
        left_out = np.logical_or.reduce([np.zeros(len(frame), bool), *gaps.values()])
        if not drop_missing:
            left_out &= weight == 0
        dropped = LeftOut()
        dropped.add(gaps, left_out & (weight != 0))
        weight[left_out] = 0
        if not weight.any():
            raise DataError(str(dropped) if dropped.rows else "weights must not be 0 everywhere")
        inputs = read_inputs(law, frame, dtype=np.float64, first_row=first_row, unused=left_out)
        measured = measurements(law, frame, first_row, left_out)
        names, ids = _groups(frame, group, first_row, left_out)
    return Runs(
        law=law,
        groups=names,
        group=ids,
        inputs=inputs,
        measured=measured,
        weights=weight,
        left_out=left_out,
        dropped=dropped,
        first_row=first_row,
    )


@contextlib.contextmanager
def opened(table: Any, laws: Sequence[Law], more: Iterable[Any] = ()) -> Iterator[Any]:
    """The frame of a table of any kind, or in a file, with whose name errors begin.

    Of a dict, columns that neither belong to the laws nor are among `more` may be anything.
    """
    if isinstance(table, (str, os.PathLike)):
        frame = as_frame(read_table(table))
        try:
            yield frame
        except DataError as error:
            raise type(error)(f"{os.fspath(table)}: {error}") from None
    elif isinstance(table, Mapping):
        columns = [name for name in table if isinstance(name, str)]
        used = {"group", *(name for name in more if isinstance(name, str))}
        for law in laws:
            own = sized(law, columns)
            used |= {*input_names(own), *own.output_columns}
        yield as_frame(table, used)
    else:
        yield as_frame(table)


def _groups(frame: Any, group: str | None, first_row: int, left_out: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of groups that have runs, and the group of each run; of those that are left out any."""
    if group is None and "group" not in frame.columns:
        return (ALONE,), np.zeros(len(frame), int)
    column = group or "group"
    if column not in frame.columns:
        raise missing(frame.columns, column)
    names = ["" if name is None else str(name) for name in frame[column].to_list()]
    empty = np.array([name == "" for name in names]) & ~left_out
    if empty.any():
        raise DataError(f"column {column!r} has no value: {rows_text(empty, first_row)}")
    position: dict[str, int] = {}
    for name, out in zip(names, left_out, strict=True):
        if not out:
            position.setdefault(name, len(position))
    return tuple(position), np.asarray([position.get(name, 0) for name in names])


def _weights(frame: Any, weights: Any, first_row: int, drop_missing: bool) -> np.ndarray:
    """The weights; with `drop_missing`, NaN where there is none."""
    if weights is None:
        return np.ones(len(frame))
    if isinstance(weights, str):
        if weights not in frame.columns:
            raise missing(frame.columns, weights)
        name = f"column {weights!r}"
        absent = incomplete(frame, [weights], first_row).get(weights) if drop_missing else None
        if absent is not None and absent.all():
            raise DataError(f"{name} has no value anywhere")
        found = numbers(frame, weights, first_row, absent).astype(np.float64)
        if absent is not None:
            found[absent] = np.nan
    else:
        name, found = "weights", np.array(weights, np.float64)
        if found.shape != (len(frame),):
            raise DataError(f"weights must be one number per row, {len(frame)} of them; they have shape {found.shape}")
    bad = ~(np.isfinite(found) & (found >= 0)) & ~(np.isnan(found) & drop_missing)
    if bad.any():
        raise DataError(f"{name} must be at least 0 and finite: {rows_text(bad, first_row)}")
    if not found.any():
        raise DataError(f"{name} must not be 0 everywhere")
    return found


def sized(law: Law, columns: Any) -> Law:
    """The law with as many elements of each vector as a table has columns for.

    Raises:
        DataError: It has none for some vector, of a law whose vectors have no size by themselves.
    """
    sizes: dict[str, int] = {}
    for v in (*variables(law.inputs), *variables(law.outputs)):
        if v.shape:
            sizes[v.shape[0]] = max(sizes.get(v.shape[0], 0), _count(v, columns))
            if not sizes[v.shape[0]] and not law.groups:
                raise missing(columns, v.columns.format(1))
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
