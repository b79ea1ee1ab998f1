"""Parquet files whose row groups are encoded side by side, in threads, and written in order.

Arrow encodes one row group after another, in one thread. Here each table becomes a Parquet file in memory, and one file
is made of them: their row groups one after another, and a footer with the metadata of all. Places in the file, of which
the metadata are full, move with their row group. In the same way columns of another file can be copied as they are,
and need not be encoded again.

A footer is a struct of Apache Thrift's compact protocol (doc/specs/thrift-compact-protocol.md in apache/thrift), with
the fields that src/main/thrift/parquet.thrift in apache/parquet-format gives it.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["Columns", "RowGroups"]

MAGIC = b"PAR1"
MOST_THREADS = 8  # each holds a table, as it is and encoded
COPIED = 1 << 22  # bytes at a time


class RowGroups:
    """Writes a Parquet file, table by table.

    Args:
        sink: Where to write; has `write`.
        encode: Makes a Parquet file, in memory, of a table. All must have the same columns.
        beside: Columns of another file, to which those of the tables are added; they have as many rows.
    """

    def __init__(self, sink: Any, encode: Callable[[Any], Any], beside: Columns | None = None):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._sink, self._encode, self._beside, self._most = sink, encode, beside, min(cores, MOST_THREADS)
        self._threads = ThreadPoolExecutor(self._most)
        self._coming: deque[Future[Any]] = deque()
        self._place = 0
        self._footer: dict[int, _Field] = {}
        self._groups: list[Any] = []
        self._sizes = deque(beside.rows if beside else ())
        self._held: list[Any] = []

    def write(self, table: Any) -> None:
        """Append a table."""
        for part in [table] if self._beside is None else self._cut(table):
            self._coming.append(self._threads.submit(self._encode, part))
            while len(self._coming) > self._most:
                self._append(self._coming.popleft().result())

    def _cut(self, table: Any) -> Iterator[Any]:
        """Tables of as many rows as the next row groups of the other file."""
        self._held.append(table)
        while self._sizes and sum(map(len, self._held)) >= self._sizes[0]:
            whole, size = pa.concat_tables(self._held), self._sizes.popleft()
            self._held = [whole[size:]]
            yield whole[:size]

    def close(self) -> None:
        """Finish the file."""
        with self._threads:
            while self._coming:
                self._append(self._coming.popleft().result())
        if self._sizes or any(map(len, self._held)):
            raise ValueError("the columns of the other file have another number of rows")
        self._footer[NUM_ROWS].value = sum(group[GROUP_ROWS].value for group in self._groups)
        self._footer[ROW_GROUPS].value = _List(STRUCT, self._groups)
        footer = _encoded(STRUCT, self._footer)
        self._put(footer + len(footer).to_bytes(4, "little") + MAGIC)

    def abandon(self) -> None:
        """Let go of what is not written yet."""
        self._threads.shutdown(cancel_futures=True)

    def _append(self, part: Any) -> None:
        data = memoryview(part)
        start, footer = _footer(pa.BufferReader(part))
        if not self._footer:
            self._put(MAGIC)
            self._footer = self._beside.footer_with(footer) if self._beside else footer
        copied = self._beside.copy(len(self._groups), self._place, self._put) if self._beside else None
        distance = self._place - len(MAGIC)
        for group in footer[ROW_GROUPS].value.items:
            _move(group, (GROUP_OFFSET,), distance)
            for column in group[COLUMNS].value.items:
                _move(column, (CHUNK_OFFSET, *INDEXES[::2]), distance)
                _move(column[METADATA].value, (*PAGE_OFFSETS, FILTER[0]), distance)
            found = _side_by_side(copied, group) if copied else group
            if ORDINAL in found:
                found[ORDINAL].value = len(self._groups)
            self._groups.append(found)
        self._put(data[len(MAGIC) : start])

    def _put(self, data: Any) -> None:
        self._sink.write(data)
        self._place += len(data)


class Columns:
    """The columns of a Parquet file, copied as they are encoded.

    Args:
        file: The file, opened for reading.

    Attributes:
        schema: Their Arrow schema.
        rows: The number of rows of each row group.
        copyable: Whether all is where it can be copied from: nothing is encrypted, or in another file.
        described: Whether the file tells the Arrow types of its columns.
    """

    def __init__(self, file: Any):
        self._file, self.schema = file, pq.read_schema(file)
        _, self._footer = _footer(file)
        self._groups = self._footer[ROW_GROUPS].value.items
        self.rows = [group[GROUP_ROWS].value for group in self._groups]
        columns = [column for group in self._groups for column in group[COLUMNS].value.items]
        here = [METADATA in column and not ELSEWHERE & column.keys() for column in columns]
        self.copyable = not ENCRYPTION & self._footer.keys() and all(here)
        self.described = ARROW_SCHEMA in self._texts()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _texts(self) -> dict[bytes, Any]:
        items = self._footer[TEXTS].value.items if TEXTS in self._footer else []
        return {item[KEY].value: item for item in items}

    def footer_with(self, other: dict[int, _Field]) -> dict[int, _Field]:
        """The footer of a file that also has the columns of another one, whose Arrow schema is that of both."""
        found = dict(self._footer)
        mine, others = (footer[SCHEMA].value.items for footer in (found, other))
        root = mine[0] | {CHILDREN: _Field(I32, mine[0][CHILDREN].value + others[0][CHILDREN].value)}
        found[SCHEMA] = _Field(LIST, _List(STRUCT, [root, *mine[1:], *others[1:]]))
        if ORDERS in found and ORDERS in other:
            orders = found[ORDERS].value.items + other[ORDERS].value.items
            found[ORDERS] = _Field(LIST, _List(STRUCT, orders))
        else:
            found.pop(ORDERS, None)
        if self.described:
            texts = [item for item in other[TEXTS].value.items if item[KEY].value == ARROW_SCHEMA]
            texts += [item for key, item in self._texts().items() if key != ARROW_SCHEMA]
            found[TEXTS] = _Field(LIST, _List(STRUCT, texts))
        return found

    def copy(self, number: int, place: int, put: Callable[[bytes], None]) -> dict[int, _Field]:
        """Write the columns of a row group at a place; its metadata there, without indexes, which lie elsewhere."""
        group = self._groups[number]
        _move(group, (GROUP_OFFSET,), place - group[GROUP_OFFSET].value if GROUP_OFFSET in group else 0)
        for column in group[COLUMNS].value.items:
            metadata = column[METADATA].value
            start = min(metadata[i].value for i in PAGE_OFFSETS if i in metadata and metadata[i].value > 0)
            _move(column, (CHUNK_OFFSET,), place - start)
            _move(metadata, PAGE_OFFSETS, place - start)
            for fields, numbers in ((column, INDEXES), (metadata, FILTER)):
                for i in numbers:
                    fields.pop(i, None)
            rest = metadata[COMPRESSED].value
            place += rest
            self._file.seek(start)
            while rest:
                data = self._file.read(min(rest, COPIED))
                if not data:
                    raise ValueError("the file ends before its last column does")
                put(data)
                rest -= len(data)
        found: dict[int, _Field] = group
        return found


def _side_by_side(one: dict[int, _Field], other: dict[int, _Field]) -> dict[int, _Field]:
    """The metadata of a row group that has the columns of two."""
    found = dict(one)
    found[COLUMNS] = _Field(LIST, _List(STRUCT, one[COLUMNS].value.items + other[COLUMNS].value.items))
    for number in (TOTAL_BYTES, TOTAL_COMPRESSED):
        if number in one and number in other:
            found[number] = _Field(I64, one[number].value + other[number].value)
        else:
            found.pop(number, None)
    return found


def _move(fields: dict[int, _Field], numbers: tuple[int, ...], distance: int) -> None:
    """Add a number of bytes to places in a file."""
    for number in numbers:
        if number in fields and fields[number].value > 0:  # 0 where a writer does not tell
            fields[number].value += distance


def _footer(file: Any) -> tuple[int, dict[int, _Field]]:
    """Where the footer of a file is, and what it says."""
    end = file.seek(-8, os.SEEK_END)
    size = int.from_bytes(file.read(4), "little")
    start = file.seek(end - size)
    return start, _struct(io.BytesIO(file.read(size)))


# Fields of structs, by their numbers in parquet.thrift.
SCHEMA, NUM_ROWS, ROW_GROUPS, TEXTS, ORDERS, ENCRYPTION = 2, 3, 4, 5, 7, {8, 9}  # of a file
CHILDREN = 5  # of an element of the schema
KEY = 1  # of a text
COLUMNS, TOTAL_BYTES, GROUP_ROWS, GROUP_OFFSET, TOTAL_COMPRESSED, ORDINAL = 1, 2, 3, 5, 6, 7  # of a row group
CHUNK_OFFSET, METADATA, INDEXES, ELSEWHERE = 2, 3, (4, 5, 6, 7), {1, 8, 9}  # of a column of it; INDEXES: places, sizes
COMPRESSED, PAGE_OFFSETS, FILTER = 7, (9, 10, 11), (14, 15)  # of its metadata
ARROW_SCHEMA = b"ARROW:schema"


# Structs of Thrift's compact protocol, as {number: _Field}.

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)


@dataclasses.dataclass
class _Field:
    kind: int
    value: Any


@dataclasses.dataclass
class _List:
    kind: int
    items: list[Any]


def _struct(data: io.BytesIO) -> dict[int, _Field]:
    """Read a struct."""
    fields: dict[int, _Field] = {}
    number = 0
    while header := data.read(1)[0]:
        number = number + (header >> 4) if header >> 4 else _signed(data)
        kind = header & 15
        fields[number] = _Field(kind, kind == TRUE if kind in (TRUE, FALSE) else _value(kind, data))
    return fields


def _value(kind: int, data: io.BytesIO) -> Any:
    if kind in (I16, I32, I64):
        return _signed(data)
    if kind in (TRUE, FALSE, BYTE):  # a truth value in a list
        return data.read(1)
    if kind == DOUBLE:
        return data.read(8)
    if kind == BINARY:
        return data.read(_unsigned(data))
    if kind in (LIST, SET):
        header = data.read(1)[0]
        size = header >> 4 if header >> 4 < 15 else _unsigned(data)
        return _List(header & 15, [_value(header & 15, data) for _ in range(size)])
    if kind == STRUCT:
        return _struct(data)
    raise ValueError(f"Parquet has no values of type {kind} of Thrift")


def _unsigned(data: io.BytesIO) -> int:
    """Read an integer of any length: 7 bits in each byte, the last ones first."""
    found = shift = 0
    while True:
        byte = data.read(1)[0]
        found |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return found


def _signed(data: io.BytesIO) -> int:
    """Read an integer whose sign is its last bit."""
    found = _unsigned(data)
    return found >> 1 if found & 1 == 0 else -(found >> 1) - 1


def _encoded(kind: int, value: Any) -> bytes:
    """A value, as `_value` reads it."""
    if kind in (I16, I32, I64):
        return _digits(2 * value if value >= 0 else -2 * value - 1)
    if kind == BINARY:
        return _digits(len(value)) + bytes(value)
    if kind in (LIST, SET):
        size = len(value.items)
        header = bytes([size << 4 | value.kind]) if size < 15 else bytes([15 << 4 | value.kind]) + _digits(size)
        return header + b"".join(_encoded(value.kind, item) for item in value.items)
    if kind == STRUCT:
        parts, last = [], 0
        for number, field in value.items():
            step = number - last
            short = 0 < step < 16
            kind = field.kind if field.kind not in (TRUE, FALSE) else TRUE if field.value else FALSE
            parts.append(bytes([(step if short else 0) << 4 | kind]) + (b"" if short else _encoded(I16, number)))
            parts.append(b"" if kind in (TRUE, FALSE) else _encoded(kind, field.value))
            last = number
        return b"".join(parts) + b"\0"
    return bytes(value)


def _digits(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
