"""Which inputs lie outside the range that coefficients were fitted on: of tables, and of the answers of searches."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlaws.law import Law, variables
from jaxlaws.sharding import with_auto_axes

__all__ = ["Outside", "RangeWarning", "Ranges", "beyond", "by_input", "ranges_for", "value_of"]


class RangeWarning(UserWarning):
    """Rows of a table, or answers of a search, lie outside the range that a law was fitted on; the message counts them.

    It also says which inputs of an answer are as far as is tried, where nobody gave a bound.
    """


class Ranges(NamedTuple):
    """Between which values the runs of one or more groups have inputs, and ratios of two of them.

    Attributes:
        ends: The least and the largest value by name, in the shape of the input; infinite where none is known. With
            `ids`, an axis of groups comes first.
        ids: The group of each configuration, where the groups differ.
    """

    ends: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ids: Any = None

    def of_each(self, name: str) -> tuple[Any, Any]:
        """The ends for each configuration, or the same for all."""
        low, high = self.ends[name]
        if self.ids is None:
            return low, high
        if not isinstance(self.ids, jax.core.Tracer):
            return low[np.asarray(self.ids)], high[np.asarray(self.ids)]
        found: tuple[Any, Any] = with_auto_axes(
            lambda ids: (jnp.asarray(low)[ids], jnp.asarray(high)[ids]), (self.ids,), (0,)
        )
        return found


def ranges_for(law: Law, group: Any, ids: Any = None) -> Ranges:
    """The ranges for the name of a group; for ids of groups; or for coefficients, which have those of the law."""
    if ids is None:
        return Ranges(_arrays(law, law.ranges_of(group if isinstance(group, str) else None)))
    each = [_arrays(law, law.ranges_of(name)) for name in law.groups]
    stacked = {}
    for name, (low, high) in {name: ends for known in each for name, ends in known.items()}.items():
        none = np.full_like(low, -math.inf), np.full_like(high, math.inf)
        lows, highs = zip(*(known.get(name, none) for known in each), strict=True)
        stacked[name] = np.stack(lows), np.stack(highs)
    if all((end == end[0]).all() for ends in stacked.values() for end in ends):  # as most laws have it
        return Ranges({name: (low[0], high[0]) for name, (low, high) in stacked.items()})
    return Ranges(stacked, ids)


def _arrays(law: Law, known: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Ranges as arrays of the shapes of the inputs; those of another number of domains tell nothing."""
    shapes = {v.name: tuple(law.sizes[axis] for axis in v.shape) for v in variables(law.inputs)}

    def full(name: str, end: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(end, np.float64), shapes.get(name, ()))

    fit = {name: ends for name, ends in known.items() if np.shape(ends[0]) in ((), shapes.get(name, ()))}
    return {name: (full(name, low), full(name, high)) for name, (low, high) in fit.items()}


def value_of(inputs: Any, name: str) -> Any:
    """An input, or the ratio of two."""
    above, _, below = name.partition("/")
    return getattr(inputs, above) / getattr(inputs, below) if below else getattr(inputs, above)


def beyond(ranges: Ranges, inputs: Any) -> dict[str, Any]:
    """Whether each input and ratio whose range is known lies outside, by name; NaN does, and an end does not.

    The inputs are a record of arrays of floats, or of tracers.
    """
    found = {}
    for name in ranges.ends:
        value, (low, high) = value_of(inputs, name), ranges.of_each(name)
        # An end is inside whatever rounding made of it: in a column of float32, or on the way through logarithms.
        near = 1e-8 if value.dtype == np.float64 else 1e-5
        low, high = low - near * abs(low), high + near * abs(high)
        if isinstance(value, np.ndarray) and value.size and np.max(low) <= value.min() and value.max() <= np.min(high):
            found[name] = np.zeros(value.shape, bool)  # most columns, without a look at each row
        else:
            found[name] = ~((low <= value) & (value <= high))
    return found


def by_input(law: Law, found: Mapping[str, Any], inputs: Any) -> Any:
    """What `beyond` found as a record of the shapes of the inputs; a ratio counts for both of its inputs."""
    fields = {}
    for v in variables(law.inputs):
        outside: Any = np.zeros(np.shape(getattr(inputs, v.name)), bool)
        for name, mask in found.items():
            if v.name in name.split("/"):
                outside = outside | mask
        fields[v.name] = outside
    return law.inputs(**fields)


@dataclasses.dataclass
class Outside:
    """How many configurations lie outside the range that a law was fitted on, and where; counts add up over batches.

    Attributes:
        law: The law.
        what: What the configurations are called: the rows of a table, or the answers of a search.
        rows: How many lie outside.
        of: How many there are.
        columns: How many lie outside in each column, or ratio of two.
    """

    law: Law
    what: str = "rows"
    rows: int = 0
    of: int = 0
    columns: Counter[str] = dataclasses.field(default_factory=Counter)
    _far: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    _ends: dict[str, dict[tuple[float, float], None]] = dataclasses.field(default_factory=dict)

    def add(self, rows: Any) -> None:
        """Count those of one batch, which has `count` of them, a record of `inputs`, and the `group` as in a table."""
        ranges = ranges_for(self.law, rows.group, rows.group if isinstance(rows.group, np.ndarray) else None)
        anywhere = np.zeros(rows.count, bool)
        fields = {v.name: v for v in variables(self.law.inputs)}
        for name, mask in beyond(ranges, rows.inputs).items():
            if not mask.any():
                continue
            names = fields[name].column_names(self.law.sizes) if name in fields else (name,)
            values, outside = (np.reshape(each, (rows.count, -1)) for each in (value_of(rows.inputs, name), mask))
            low, high = (np.reshape(end, (-1, len(names))) for end in ranges.ends[name])
            anywhere |= outside.any(axis=1)
            for column, value, out, least, most in zip(names, values.T, outside.T, low.T, high.T, strict=True):
                if out.any():
                    self.columns[column] += int(out.sum())
                    of = [0] if ranges.ids is None else np.unique(ranges.ids[out])
                    ends = zip(least[of].tolist(), most[of].tolist(), strict=True)
                    self._ends.setdefault(column, {}).update(dict.fromkeys(ends))
                    far = np.append(self._far.get(column, []), value[out])
                    self._far[column] = float(np.fmin.reduce(far)), float(np.fmax.reduce(far))
        self.rows += int(anywhere.sum())
        self.of += rows.count

    def __str__(self) -> str:
        parts = []
        for column, count in self.columns.items():
            fitted = " or ".join(f"{low:g} to {high:g}" for low, high in [*self._ends[column]][:3])
            far = " to ".join(dict.fromkeys(f"{value:g}" for value in self._far[column]))
            answers = "" if self.what == "rows" else f", {far}"
            parts.append(f"{column} in {count:,}{answers} (fitted on {fitted})")
        text = f"{self.rows:,} of {self.of:,} {self.what} outside the range that {self.law.name} was fitted on: "
        return text + ", ".join(parts)
