"""Columns in and out: predictions and derivatives for tables of any kind, and tables from files.

Tables are pandas, polars and Arrow tables (anything that narwhals reads) and dicts of columns; what comes out is of
the kind that came in. Columns are found by the name of the input or its aliases, and read without a copy where the
table holds them contiguously as floats. Everything is checked before anything is computed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import narwhals as nw
import numpy as np
from narwhals.exceptions import DuplicateError

from jaxlaws.arguments import Choice, check_law, group_ids, unmasked
from jaxlaws.columns import from_columns
from jaxlaws.evaluation import tabulate
from jaxlaws.law import Law, UnknownNameError, Var, stack, variables
from jaxlaws.proportions import Normalised, ProportionsWarning
from jaxlaws.ranges import Outside, RangeWarning
from jaxlaws.warning import warn_caller

__all__ = [
    "DataError",
    "LeftOut",
    "MissingWarning",
    "gradient_table",
    "predict_table",
    "read_table",
]

Frame = nw.DataFrame[Any]


class DataError(ValueError):
    """A table that cannot be used; the message names the column and the rows."""


class NoValueError(DataError):
    """A column without a value in some rows, or with NaN."""


class NoGroupError(DataError):
    """A table that does not say which of several groups its rows belong to."""


class MissingWarning(UserWarning):
    """Runs without a value were left out, as `drop_missing` asks for; the message counts them."""


def read_table(path: str | os.PathLike[str], format: str | None = None) -> Any:
    r"""A table in a file or a folder, in any form that the commands read.

    Args:
        path: A file in Parquet (`.parquet`, `.pq`), CSV (`.csv`) or JSON lines (`.jsonl`, `.ndjson`, `.json`), the
            texts also compressed (`.gz`, `.zst`, `.bz2`, `.lz4`); or a folder that Hugging Face `datasets` saved with
            `save_to_disk`. Of a dict of datasets, the split `train` is read, or without one the first; a path to the
            folder of another split reads that.
        format: "parquet", "csv" or "jsonl", where the suffix of a file does not tell.

    Returns:
        An Arrow table, with the types of the file. CSV has none: a column is int64 or float64 where every value that is
        there is a number, and otherwise text. The column `group` is always text, and so is one that numbers would not
        tell in full, with 007 or 0x1f. What is read from a folder stays in its files, mapped into memory.

    Raises:
        DataError: The table is damaged, or not of its format; the message names the file.
        OSError: The file cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> import jaxlaws as jl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "runs.csv")
        ...     _ = path.write_text("num_params,parallel_size,group\n1e9,1,pile\n2e9,4,stack\n")
        ...     runs = jl.read_table(path)
        >>> jl.predict_table(jl.laws["parallel"], runs)["loss"].to_pylist()
        [2.0149..., 1.0350...]
    """
    from jaxlaws import files

    try:
        return files.read_whole(os.fspath(path), format)
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from None


def predict_table(
    law: Law,
    table: Any,
    group: Any = None,
    *,
    gradients: bool = False,
    weights: Any = None,
    dtype: Any = None,
    strict: bool = False,
) -> Any:
    """A table with the predictions of a law as new columns.

    Args:
        law: The law.
        table: A pandas or polars DataFrame, an Arrow table, or a dict of columns, with a column per input, under its
            name or an alias (`law.input_columns`).
        group: Name of a group of the law, or of the column that holds each row's group, or coefficients. By default
            the column `group` where there is one, else the only group of the law.
        gradients: Also add the derivatives with respect to the inputs, as columns `d_loss_d_num_params`.
        weights: For the derivatives of laws with several outputs: the weights of these; by default their mean.
        dtype: What to compute in; by default float32 where all inputs are, else float64.
        strict: Make inputs outside the range that the law was fitted on an error, in place of a warning.

    Returns:
        A table of the same kind with the columns it had, and one per output, named as in `law.output_columns`, or
        `predicted_loss` where the table has a column `loss` already.

    Raises:
        DataError: A column is missing, holds no numbers, or holds values that the law is not defined at. Rows are
            counted from 0.
        UnknownNameError: `group` is neither a group nor a column.

    Warns:
        RangeWarning: Rows lie outside the range that their groups were fitted on.
        ProportionsWarning: Proportions did not sum to 1, and were divided by their sum.

    Example:
        >>> import jaxlaws as jl
        >>> runs = {"num_params": [1e9, 2e9], "parallel_size": [1, 4], "group": ["pile", "stack"]}
        >>> jl.predict_table(jl.laws["parallel"], runs)["loss"]
        array([2.0149..., 1.0350...])
    """
    return _extended(law, table, group, ("value", "gradient") if gradients else ("value",), weights, dtype, strict)


def gradient_table(
    law: Law,
    table: Any,
    group: Any = None,
    *,
    elasticity: bool = False,
    weights: Any = None,
    dtype: Any = None,
    strict: bool = False,
) -> Any:
    """A table with the derivatives of a law with respect to its inputs as new columns.

    Args:
        law: The law.
        table: As for [`predict_table`][jaxlaws.predict_table].
        group: As for [`predict_table`][jaxlaws.predict_table].
        elasticity: Percent of output per percent of input, in columns `elasticity_num_params`, in place of the
            derivatives in columns `d_loss_d_num_params`.
        weights: For laws with several outputs: the weights of these; by default their mean, or where outputs of
            different kinds have none, each output by itself, in columns `d_batch_size_d_tokens`.
        dtype: What to compute in; by default float32 where all inputs are, else float64.
        strict: Make inputs outside the range that the law was fitted on an error, in place of a warning.

    Returns:
        A table of the same kind with the columns it had and the new ones.

    Raises:
        DataError: A column is missing, holds no numbers, or holds values that the law is not defined at. Rows are
            counted from 0.
        UnknownNameError: `group` is neither a group nor a column.

    Warns:
        RangeWarning: Rows lie outside the range that their groups were fitted on.
        ProportionsWarning: Proportions did not sum to 1, and were divided by their sum.

    Example:
        >>> import jaxlaws as jl
        >>> table = jl.gradient_table(jl.laws["sft"], {"sft_data_size": [1e3]}, "('gpt2', 'flan')", elasticity=True)
        >>> table["elasticity_sft_data_size"]
        array([-0.09034899])
    """
    return _extended(law, table, group, ("elasticity" if elasticity else "gradient",), weights, dtype, strict)


def _extended(law: Law, table: Any, group: Any, verbs: tuple[str, ...], weights: Any, dtype: Any, strict: bool) -> Any:
    check_law(law)
    frame = as_frame(table, {*input_names(law), "group", *([group] if isinstance(group, str) else [])})
    inputs = read(law, frame, group, dtype=dtype)
    outside = Outside(law)
    outside.add(inputs)
    if outside.rows and strict:
        raise DataError(str(outside))
    if outside.rows:
        warn_caller(outside, RangeWarning)
    new = results(law, inputs, verbs, frame.columns, weights)
    if isinstance(table, Mapping):
        return {**table, **new}
    series = [nw.new_series(name, values, backend=frame.implementation) for name, values in new.items()]
    return frame.with_columns(*series).to_native()


# What the command line shares with the functions above.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """The checked inputs of a table, and the group that they are predicted for."""

    inputs: Any
    group: Any
    count: int


def _native(values: np.ndarray) -> np.ndarray:
    """Numbers in the order of bytes of this machine, and in at most 64 bits."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    return values.astype(f"{kind}{min(size, 8)}", copy=False) if kind in "fiu" else values


@contextlib.contextmanager
def hinted() -> Iterator[None]:
    """Add to errors of missing values what can be done about them."""
    try:
        yield
    except NoValueError as error:
        raise NoValueError(f"{error}; drop_missing=True leaves such runs out") from None


def input_names(law: Law) -> set[str]:
    """All names that columns of a law's inputs may have."""
    return {*law.input_columns, *(alias for v in variables(law.inputs) for alias in v.aliases)}


def as_frame(table: Any, used: Collection[str] | None = None) -> Frame:
    """Any table as a narwhals DataFrame; of the columns of a dict, all but those in `used` may be anything."""
    try:
        if isinstance(table, Mapping):
            import pyarrow as pa

            names = [name for name in table if isinstance(name, str)]
            held = {name: _held(table[name]) for name in names if used is None or name in used}
            nothing = pa.nulls(len(next(iter(held.values()), ())))  # in the others, of which the names matter
            table = pa.table({name: held.get(name, nothing) for name in names})
        return nw.from_native(table, eager_only=True)
    except (TypeError, ValueError, DuplicateError) as error:
        kind = f"{type(table).__module__}.{type(table).__name__}"
        if "Lazy" in kind:
            raise DataError(f"{kind} is lazy; collect it first") from None
        reason = " ".join(str(error).split())
        raise DataError(f"not a table of columns with different names and one length: {kind}: {reason}") from None


def _held(column: Any) -> Any:
    """A column of a dict as Arrow holds it, without a copy where that is possible."""
    import pyarrow as pa

    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        return column
    try:
        return pa.array(column if isinstance(column, list) else _native(unmasked(column)))
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        pass
    values = np.empty(len(column), object)
    values[:] = list(column)
    if all(isinstance(x, (int, float)) for x in values):  # integers beyond 64 bits
        return pa.array(values.astype(np.float64))
    return pa.array([str(x) for x in values])  # complex numbers, for example


def read(
    law: Law,
    frame: Frame,
    group: Any = None,
    *,
    dtype: Any = None,
    first_row: int = 0,
    unused: np.ndarray | None = None,
    tally: Normalised | None = None,
) -> Rows:
    """The inputs of a law from a table, checked, and the group; errors count rows from `first_row`."""
    inputs = read_inputs(law, frame, dtype=dtype, first_row=first_row, unused=unused, tally=tally)
    return Rows(inputs=inputs, group=_group(law, frame, group, first_row), count=len(frame))


def read_inputs(
    law: Law,
    frame: Frame,
    *,
    dtype: Any = None,
    first_row: int = 0,
    unused: np.ndarray | None = None,
    tally: Normalised | None = None,
) -> Any:
    """The record of the inputs, checked, with proportions that sum to 1; rows marked as `unused` repeat another one.

    Where some were divided by their sum, that is a warning, or of several tables it is for `tally` to tell.
    """
    columns = [numbers(frame, find(frame, v, column), first_row, unused) for v, column in law.columns]
    if dtype is None:
        dtype = np.result_type(np.float32, *columns)
    if not np.issubdtype(dtype, np.floating):
        raise TypeError(f"dtype must be that of floating-point numbers, not {dtype}")
    columns = [
        _as_dtype(values, column, dtype, first_row) for (_, column), values in zip(law.columns, columns, strict=True)
    ]
    for (v, column), values in zip(law.columns, columns, strict=True):
        if v.floor is None and values.size and values.min() <= v.above:
            limit = "positive" if v.above == 0 else f"greater than {v.above:g}"
            low = values <= v.above if unused is None else (values <= v.above) & ~unused
            raise DataError(f"column {column!r} must be {limit}: {rows_text(low, first_row)}")
    inputs = from_columns(law, columns)
    counts = Normalised() if tally is None else tally
    for v in variables(law.inputs):
        if v.total is not None:
            names = v.column_names(law.sizes)
            what, given = f"columns {names[0]!r} to {names[-1]!r}", getattr(inputs, v.name)
            try:
                values = counts.add(given, v.total, what, lambda i: f" in row {i[0] + first_row}", unused)
            except ValueError as error:
                raise DataError(str(error)) from None
            inputs = dataclasses.replace(inputs, **{v.name: values})
    if tally is None and counts.rows:
        warn_caller(counts, ProportionsWarning)
    return inputs


def _as_dtype(values: np.ndarray, column: str, dtype: Any, first_row: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        found = values.astype(dtype, copy=False)
    if found is not values and found.size and np.isinf(found.max()):
        beyond = np.isinf(found) & np.isfinite(values)
        if beyond.any():
            raise DataError(f"column {column!r} is too large for {np.dtype(dtype)}: {rows_text(beyond, first_row)}")
    return found


def numbers(frame: Frame, column: str, first_row: int, unused: np.ndarray | None = None) -> np.ndarray:
    """A column of numbers as a NumPy array, with an error for text and missing values.

    Rows marked as `unused` need no value: they get that of the first row that is used.
    """
    values, absent = _numbers(frame, column, first_row)
    if unused is not None and unused.any():
        values = values.copy()
        values[unused] = values[np.argmin(unused)]
        absent = {kind: rows & ~unused for kind, rows in absent.items()}
    for kind, rows in absent.items():
        if rows.any():
            raise NoValueError(f"column {column!r} {kind}: {rows_text(rows, first_row)}")
    return values


def measurements(law: Law, frame: Frame, first_row: int, unused: np.ndarray | None = None) -> np.ndarray:
    """The measured outputs, [row, output], in float64; rows marked as `unused` repeat another one."""
    for column in law.output_columns:
        if column not in frame.columns:
            raise missing(frame.columns, column)
    columns = [numbers(frame, column, first_row, unused) for column in law.output_columns]
    measured = np.stack(columns, axis=-1).astype(np.float64, copy=False)
    for column, values in zip(law.output_columns, measured.T, strict=True):
        if np.isinf(values).any():
            raise NoValueError(f"column {column!r} is infinite: {rows_text(np.isinf(values), first_row)}")
    return measured


def incomplete(frame: Frame, columns: Iterable[str], first_row: int) -> dict[str, np.ndarray]:
    """The rows in which each of these columns of numbers has no finite value, where there are any."""
    found = {}
    for column in columns:
        values, absent = _numbers(frame, column, first_row)
        rows = np.logical_or.reduce([*absent.values(), np.isinf(values)])
        if rows.any():
            found[column] = rows
    return found


def _numbers(frame: Frame, column: str, first_row: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A column of numbers as a NumPy array, and the rows that have no value, and those that have NaN."""
    series, dtype = frame[column], _dtype(frame, column)
    if series.implementation.is_pandas_like() and dtype == nw.Unknown:  # what narwhals has no name for
        values = _native(series.to_native().to_numpy())
        if values.dtype.kind in "fiu":
            series = nw.new_series(column, values, backend="pandas")
            dtype = series.dtype
    if not dtype.is_numeric():
        raise DataError(f"column {column!r} must hold numbers; it holds {dtype}{_wrong(series, first_row)}")
    absent = {}
    if series.null_count():
        absent["has no value"] = series.is_null().to_numpy()
        series = series.fill_null(0)
    if series.implementation.is_pyarrow() and not dtype.is_decimal():
        array = series.to_native()  # in one piece it is not copied, and to_numpy() would load pandas
        values = np.from_dlpack(array.chunk(0) if array.num_chunks == 1 else array.combine_chunks())
    else:
        wide = dtype in (nw.Int128, nw.UInt128)  # which NumPy has not
        values = np.asarray((series.cast(nw.Float64) if wide else series).to_numpy())
    if values.dtype.kind not in "fiu":  # decimals
        values = values.astype(np.float64)
    if values.dtype.kind == "f" and values.size and np.isnan(values.min()):
        absent["is not a number (NaN)"] = np.isnan(values)
    return values, absent


def _dtype(frame: Frame, column: str) -> Any:
    try:
        return frame[column].dtype
    except ValueError as error:  # a type that narwhals does not know
        raise DataError(f"column {column!r} must hold numbers; its type cannot be read: {error}") from None


def _wrong(series: nw.Series[Any], first_row: int) -> str:
    """The first value of a column that is no number, or if all are, as texts may be, the first."""
    values = [(row, value) for row, value in enumerate(series.to_list(), first_row) if value is not None]
    row, value = next(((row, value) for row, value in values if not _is_number(value)), (values or [(0, None)])[0])
    text = repr(value) if isinstance(value, str) else " ".join(str(value).split())
    return "" if value is None else f": {text if len(text) <= 40 else text[:37] + '...'} in row {row}"


def _is_number(value: Any) -> bool:
    if not isinstance(value, str):
        return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    try:
        float(value)
    except ValueError:
        return False
    return True


def results(
    law: Law, rows: Rows, verbs: tuple[str, ...], taken: Sequence[str], weights: Any = None
) -> dict[str, np.ndarray]:
    """The columns that verbs ("value", "gradient", "elasticity") add to a table with columns `taken`."""
    new: dict[str, np.ndarray] = {}

    def add(verbs: tuple[str, ...], weights: Any, output: str = "") -> None:
        found = tabulate(law, verbs, rows.group, rows.inputs, rows.count, weights)
        for verb, result in zip(verbs, found, strict=True):
            if verb == "value":
                names = [f"predicted_{name}" if name in taken else name for name in law.output_columns]
                values = result.reshape(rows.count, len(names))
            else:
                prefix = f"d_{output or law.output_name}_d" if verb == "gradient" else f"elasticity_{output}".strip("_")
                names = [f"{prefix}_{column}" for column in law.input_columns]
                values = np.column_stack([getattr(result, v.name) for v in variables(law.inputs)])
            new.update(zip(names, np.ascontiguousarray(values.T), strict=True))

    slopes = tuple(verb for verb in verbs if verb != "value")
    if slopes and weights is None and law.output_shape == ("output",):  # which have no mean: each by itself
        if "value" in verbs:
            add(("value",), None)
        for output, unit in zip(law.output_columns, np.eye(len(law.output_columns)), strict=True):
            add(slopes, unit, output)
    else:
        add(verbs, weights)
    clash = [name for name in new if name in taken]
    if clash:
        raise DataError(f"the table has a column {clash[0]!r} already; rename or drop it")
    return new


def find(frame: Frame, v: Var, column: str) -> str:
    """The name of the column of an input, or the one of its aliases, that a table has."""
    if column in frame.columns:
        return column
    found = [alias for alias in v.aliases if alias in frame.columns]
    if not found:
        raise missing(frame.columns, column, v.aliases)
    if len(found) > 1:
        raise DataError(f"columns {found[0]!r} and {found[1]!r} are both names of {column!r}; rename one")
    return found[0]


def missing(columns: Sequence[str], column: str, aliases: Sequence[str] = ()) -> DataError:
    """The error for a column that a table with these columns does not have."""
    other = f" (nor {', '.join(map(repr, aliases))})" if aliases else ""
    words = [name for name in columns if isinstance(name, str)]
    folded = {name.strip().casefold().replace(" ", "_"): name for name in words}
    near = [folded[name] for name in difflib.get_close_matches(column.casefold(), folded, n=1)]
    has = ", ".join(map(repr, columns[:20])) + (", ..." if len(columns) > 20 else "")
    hint = f"; did you mean {near[0]!r}?" if near else f"; the table has {has or 'no columns'}"
    if columns and not words:
        hint += ", and names of columns must be text"
    if len(columns) == 1 and (marks := [mark for mark in ";\t|" if mark in str(columns[0])]):
        hint = f"; the columns seem to be separated by {marks[0]!r}, where a comma is needed"
    return DataError(f"no column {column!r}{other}{hint}")


def _group(law: Law, frame: Frame, group: Any, first_row: int) -> Any:
    """The group as `tabulate` takes it: a name, coefficients, an id per row, or coefficients with an id per row."""
    if isinstance(group, Mapping) and any(isinstance(coefs, law.coefs) for coefs in group.values()):
        return _own_group(law, frame, group, first_row)
    if group is None:
        if "group" in frame.columns:
            return _ids(law, law.groups, frame["group"], first_row)
        if len(law.groups) == 1:
            return next(iter(law.groups))
        if not law.groups:
            raise DataError(f"{law.name} has no group; give coefficients, such as those of a fit")
        known = ", ".join(map(repr, list(law.groups)[:4])) + (", ..." if len(law.groups) > 4 else "")
        raise NoGroupError(
            f"{law.name} has {len(law.groups)} groups, and the table no column 'group': name a group, such as {known}"
        )
    if isinstance(group, str) and group not in law.groups:
        if group in frame.columns:
            return _ids(law, law.groups, frame[group], first_row)
        raise UnknownNameError.of(f"group of {law.name}, or column,", group, [*law.groups, *frame.columns])
    if isinstance(group, str) and group in frame.columns:
        raise DataError(f"{group!r} is a group of {law.name} and a column of the table; rename the column")
    if isinstance(group, (str, Mapping)):
        return group
    if isinstance(group, law.coefs):
        if any(np.ndim(getattr(group, v.name)) != len(v.shape) for v in variables(law.coefs)):
            raise DataError("a table takes one set of coefficients; these have leading axes")
        return group
    ids = np.asarray(group_ids(law, group))
    if ids.shape not in ((), (len(frame),)):
        raise DataError(f"there are {len(frame)} rows, and groups of shape {ids.shape}")
    return np.broadcast_to(ids, len(frame))


def _own_group(law: Law, frame: Frame, groups: Mapping[str, Any], first_row: int) -> Any:
    """The same for groups of the caller's own, such as those that were fitted."""
    if "group" in frame.columns:
        return Choice(stack(groups.values()), _ids(law, groups, frame["group"], first_row))
    if len(groups) == 1:
        return next(iter(groups.values()))
    raise DataError(f"there are {len(groups)} groups, and the table has no column 'group'")


def _ids(law: Law, groups: Mapping[str, Any], names: nw.Series[Any], first_row: int) -> np.ndarray:
    """The position in `groups` of each row's group."""
    positions = {name: i for i, name in enumerate(groups)}
    if names.dtype == nw.Categorical and names.implementation.is_pyarrow() and not names.null_count():
        ids = _ids_of_dictionaries(names.to_native(), positions)
        if not ids.size or ids.min() >= 0:
            return ids
    numbered = names.dtype.is_integer() and any(name.lstrip("-").isdigit() for name in positions)
    if numbered or names.dtype in (nw.Categorical, nw.Enum, nw.String):  # Arrow has several kinds of strings
        names = names.cast(nw.String)
    if names.null_count():
        raise DataError(f"column {names.name!r} has no value: {rows_text(names.is_null().to_numpy(), first_row)}")
    if len(names) and names.dtype not in (nw.String, nw.Object):
        raise DataError(f"column {names.name!r} must hold names of groups; it holds {names.dtype}")
    if names.dtype == nw.Object:
        for row, name in enumerate(names.to_list(), first_row):
            if not isinstance(name, str):
                kind = type(name).__name__
                raise DataError(f"column {names.name!r} must hold names of groups; it holds a {kind} in row {row}")
    for name in names.unique().to_list():
        if name not in positions:
            error = UnknownNameError.of(f"group of {law.name}", name, groups)
            raise DataError(f"column {names.name!r}, {rows_text((names == name).to_numpy(), first_row)}: {error}")
    ids = names.replace_strict(list(positions), list(positions.values()), return_dtype=nw.Int32).to_numpy()
    return np.asarray(ids)


def _ids_of_dictionaries(column: Any, positions: Mapping[str, int]) -> np.ndarray:
    """The same for Arrow dictionaries, with one look per name and not per row; -1 for what is no name of a group."""
    parts = [np.empty(0, np.int32)]
    for chunk in column.chunks:
        names = chunk.dictionary.to_pylist()
        known = np.array([positions.get(name, -1) if isinstance(name, str) else -1 for name in names], np.int32)
        parts.append(known[np.from_dlpack(chunk.indices)])
    return np.concatenate(parts)


def rows_text(bad: np.ndarray, first_row: int) -> str:
    """The first five rows of a mask, as text."""
    rows = np.flatnonzero(bad)
    text = ", ".join(str(row + first_row) for row in rows[:5])
    if len(rows) == 1:
        return f"row {text}"
    return f"rows {text}" + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")


@dataclasses.dataclass
class LeftOut:
    """How many rows of a table were left out, as they have no value; counts add up over batches."""

    rows: int = 0
    of: int = 0
    columns: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, gaps: Mapping[str, np.ndarray], left_out: np.ndarray) -> None:
        """Count the rows of one batch, with the rows in which each column has no value."""
        self.rows += int(left_out.sum())
        self.of += len(left_out)
        self.columns.update({column: int((rows & left_out).sum()) for column, rows in gaps.items()})

    def warn(self) -> None:
        """Warn the caller of this package, if there are any."""
        if self.rows:
            warn_caller(self, MissingWarning)

    def __str__(self) -> str:
        parts = [f"{column} in {count:,}" for column, count in self.columns.items() if count]
        return f"{self.rows:,} of {self.of:,} runs were left out, which have no value: {', '.join(parts)}"
