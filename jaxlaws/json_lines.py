"""Tables in JSON lines: one object per line, whose keys and types may differ from line to line.

They are read twice: first for the columns that there are and their types, then for the rows.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from jaxlaws.tables import DataError
from jaxlaws.text import blocks, decoded

__all__ = ["LINES", "JsonLines", "extended", "renamed"]

LINES = "\0lines"  # the column of whole lines

NOT_FINITE = ("NaN", "nan", "NAN", "Infinity", "-Infinity", "inf", "-inf")  # as text, since JSON has no such numbers
DEPTH = 64  # of lists and objects in each other that have a type of their own
MANY_DIGITS = re.compile(r"\d{19}")  # of integers that may be beyond 64 bits

KINDS = (
    (pa.types.is_integer, int),
    (pa.types.is_floating, float),
    (pa.types.is_boolean, bool),
    (pa.types.is_string, str),
    (pa.types.is_nested, list),
)
_Failed = (pa.ArrowException, OverflowError, TypeError, ValueError)


class JsonLines:
    """A table in JSON lines, as an iterator over Arrow record batches.

    A column that has values of one kind has that type: int64, float64 (also with the texts "NaN" and "Infinity"),
    bool, string, or what Arrow makes of lists and objects that are alike. Others are text: texts as they are, and
    anything else in JSON. If there are `numbers`, so are other columns with integers that neither int64 nor float64
    holds.

    Args:
        source: A file of bytes that can be read twice.
        block: How many bytes to read at a time.
        columns: The columns to read, of those there are; by default all.
        numbers: Columns that are float64 if they hold numbers of any kind.
        lines: Whether to give whole lines, in the column `LINES`, in place of the columns that are not read.

    Attributes:
        names: The names of all columns.
        schema: The Arrow schema of the batches.

    Raises:
        DataError: The file is empty, or not JSON lines; the message names the line.
    """

    def __init__(
        self,
        source: Any,
        block: int,
        columns: Collection[str] | None = None,
        numbers: Collection[str] = (),
        lines: bool = False,
    ):
        self._source, self._block, self._numbers = source, block, numbers
        self._kinds: dict[str, set[Any]] = {}
        self._words: set[str] = set()  # columns with texts that are no numbers
        self._nested: dict[str, Any] = {}  # types of lists and objects, None where they do not fit together
        for number, text in self._blocks():
            table = None if MANY_DIGITS.search(text) else _by_arrow(text)
            if table is None or any(map(_has_times, table.schema.types)):
                self._see_rows(_objects(text, number, _once))
            else:
                self._see_table(table)
        kinds = self._kinds
        self.names = [*kinds]
        types = {name: self._type(name, kinds[name]) for name in kinds}
        fields = [(name, type) for name, type in types.items() if columns is None or name in columns]
        self.schema = pa.schema(fields + ([(LINES, pa.large_string())] if lines else []))

    def _see_table(self, table: Any) -> None:
        """Take note of the kinds of values in what Arrow read."""
        for name, column in zip(table.column_names, table.columns, strict=True):
            kind = next((kind for is_type, kind in KINDS if is_type(column.type)), None)
            self._kinds.setdefault(name, set()).add(kind or type(None))
            if (
                kind is str
                and name not in self._words
                and not pc.all(pc.is_in(column, value_set=pa.array([*NOT_FINITE, None]))).as_py()
            ):
                self._words.add(name)
            if kind is list:
                self._nested[name] = _joined(self._nested, name, column.type)

    def _see_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take note of the kinds of values in rows."""
        for name, kind in dict.fromkeys((name, type(value)) for row in rows for name, value in row.items()):
            self._kinds.setdefault(name, set()).add(list if kind in (dict, _Twice) else kind)
            texts = (value for row in rows if isinstance(value := row.get(name), str))
            if kind is str and not set(NOT_FINITE).issuperset(texts):
                self._words.add(name)
            if kind in (list, dict, _Twice):
                self._nested[name] = None

    def _type(self, name: str, kinds: set[Any]) -> Any:
        """The Arrow type of a column."""
        kinds = kinds - {type(None)}
        used = name in self._numbers
        if not kinds:
            return pa.float64() if used else pa.string()
        if kinds & {int, float, _Large} and kinds <= {int, float, _Large, str} and name not in self._words:
            if _Large in kinds and self._numbers and not used:
                return pa.string()
            return pa.int64() if kinds == {int} and not used else pa.float64()
        if kinds == {bool}:
            return pa.bool_()
        nested = self._nested[name] if kinds == {list} else None
        # Parquet can hold neither objects without keys nor lists of nothing.
        return pa.string() if nested is None or re.search("struct<>|null", str(nested)) else nested

    def __iter__(self) -> Iterator[Any]:
        columns = pa.schema([field for field in self.schema if field.name != LINES])
        for number, text in self._blocks():
            table = _by_arrow(text, columns)
            lines = _lines(text) if LINES in self.schema.names else None
            if table is None or (lines is not None and len(lines) != len(table)):
                rows = _objects(text, number, None)
                table = pa.Table.from_arrays([_array(rows, f.name, f.type) for f in columns], schema=columns)
            arrays = table.columns
            if lines is not None:
                arrays = [*arrays, pa.array(lines, pa.large_string())]
            yield from pa.Table.from_arrays(arrays, schema=self.schema).to_batches()

    def _blocks(self) -> Iterator[tuple[int, str]]:
        """Blocks that hold something, each with the number of its first line."""
        self._source.seek(0)
        number, found = 1, False
        for data in blocks(self._source, self._block):
            text = decoded(data, number)
            if text.strip():
                found = True
                yield number, text
            number += data.count(b"\n")
        if not found:
            raise DataError("the file is empty")


def _lines(text: str) -> list[str]:
    """The lines that hold something."""
    return list(filter(None, map(str.strip, text.split("\n"))))


def _by_arrow(text: str, schema: Any = None) -> Any:
    """What Arrow makes of a block, which is fast; None where it fails, or where not every line is an object."""
    data = text.encode()
    if _is_deep(data):
        return None
    parse = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore" if schema else "infer")
    read = pa.json.ReadOptions(block_size=len(data) + 1, use_threads=False)
    try:
        table = pa.json.read_json(io.BytesIO(data), read, parse)
    except pa.ArrowException:
        return None
    return table if len(table) == text.count("\n") + (not text.endswith("\n")) else None


def _is_deep(data: bytes) -> bool:
    """Whether lists and objects may lie as deep in each other as crashes Arrow; brackets in texts count, too."""
    if data.count(b"[") + data.count(b"{") <= data.count(b"\n") + DEPTH:
        return False
    steps = np.zeros(256, np.int64)
    steps[list(b"[{")], steps[list(b"]}")] = 1, -1
    level = steps[np.frombuffer(data, np.uint8)].cumsum()
    return bool((level - np.minimum.accumulate(level)).max() > DEPTH)


def _has_times(type: Any) -> bool:
    """Whether Arrow took text for times."""
    return "time" in str(type) or "date" in str(type)


def _objects(text: str, number: int, hook: Any) -> list[dict[str, Any]]:
    """The objects in the lines of a block, the first of which has this number."""
    decoder = json.JSONDecoder(object_pairs_hook=hook, parse_int=_integer if MANY_DIGITS.search(text) else None)
    lines = enumerate(map(str.strip, text.split("\n")), number)
    return [_object(decoder, line, i) for i, line in lines if line]


class _Large(int):
    """An integer that neither int64 nor float64 holds."""


def _integer(text: str) -> int | float:
    value = int(text)
    if -(1 << 63) <= value < 1 << 63:
        return value
    near = _float(value)
    return near if near == value else _Large(value)


class _Twice(dict[str, Any]):
    """An object with a key that it was given twice."""


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Twice(found)


def _object(decoder: json.JSONDecoder, line: str, number: int) -> dict[str, Any]:
    """The object in a line."""
    try:
        found = decoder.decode(line)
    except (ValueError, RecursionError) as error:
        place = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        if line.startswith("[") and number == 1:
            found = []
        else:
            text = f"JSON parse error in line {number}{place}: {reason}; each line must be one whole object"
            raise DataError(text) from None
    if isinstance(found, dict):
        if isinstance(found, _Twice):
            raise DataError(f"line {number} has a key twice")
        return found
    if isinstance(found, list) and number == 1:
        raise DataError("this is a JSON array; a table in JSON lines has one object per line")
    raise DataError(f"line {number} is not an object; each line must be one, such as {{'params': 1e9}}")


def _joined(known: Mapping[str, Any], name: str, type: Any) -> Any:
    """An Arrow type of lists or objects, and that which was known of the same column."""
    before = known.get(name, pa.null())
    if before is None or str(type).count("<") > DEPTH:
        return None
    try:
        schemas = [pa.schema([(name, each)]) for each in (before, type)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except _Failed:
        return None


def _array(rows: Sequence[Mapping[str, Any]], name: str, type: Any) -> Any:
    """A column as an Arrow array."""
    values = [row.get(name) for row in rows]
    if pa.types.is_string(type):
        values = [_text(value) for value in values]
    try:
        return pa.array(values, type)
    except _Failed as error:
        if not pa.types.is_floating(type):
            raise DataError(f"column {name!r}: {error}") from None
    return pa.array([None if value is None else _float(value) for value in values], type)  # integers, "NaN"


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else -float("inf")


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()  # half of a pair of code units has no UTF-8


def renamed(lines: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Lines with other names in place of some."""
    rows = map(json.loads, lines)
    return [json.dumps({names.get(name, name): value for name, value in row.items()}) for row in rows]


def extended(lines: Sequence[str], more: Sequence[str]) -> Iterator[str]:
    """Lines, each with what is in another object at its end, and otherwise to the letter."""
    for line, other in zip(lines, more, strict=True):
        start = line[:-1].rstrip()
        comma = ", " if len(start) > 1 and len(other) > 2 else ""
        yield f"{start}{comma}{other[1:]}\n"
