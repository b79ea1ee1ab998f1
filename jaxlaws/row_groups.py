"""Parquet files whose row groups are encoded side by side, in threads, and written in order.

Arrow encodes one row group after another, in one thread. Here each table becomes a Parquet file in memory, and one file
is made of them: their row groups one after another, and a footer with the metadata of all. Places in the file, of which
the metadata are full, move with their row group.

A footer is a struct of Apache Thrift's compact protocol (doc/specs/thrift-compact-protocol.md in apache/thrift), with
the fields that src/main/thrift/parquet.thrift in apache/parquet-format gives it.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

__all__ = ["RowGroups"]

MAGIC = b"PAR1"
MOST_THREADS = 8  # each holds a table, as it is and encoded


class RowGroups:
    """Writes a Parquet file, table by table.

    Args:
        sink: Where to write; has `write`.
        encode: Makes a Parquet file, in memory, of a table. All must have the same columns.
    """

    def __init__(self, sink: Any, encode: Callable[[Any], Any]):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._sink, self._encode, self._most = sink, encode, min(cores, MOST_THREADS)
        self._threads = ThreadPoolExecutor(self._most)
        self._coming: deque[Future[Any]] = deque()
        self._place = 0
        self._footer: dict[int, _Field] = {}

    def write(self, table: Any) -> None:
        """Append a table."""
        self._coming.append(self._threads.submit(self._encode, table))
        while len(self._coming) > self._most:
            self._append(self._coming.popleft().result())

    def close(self) -> None:
        """Finish the file."""
        with self._threads:
            while self._coming:
                self._append(self._coming.popleft().result())
        footer = _encoded(STRUCT, self._footer)
        self._put(footer + len(footer).to_bytes(4, "little") + MAGIC)

    def abandon(self) -> None:
        """Let go of what is not written yet."""
        self._threads.shutdown(cancel_futures=True)

    def _append(self, part: Any) -> None:
        data = memoryview(part)
        end = len(data) - 8
        start = end - int.from_bytes(data[end : end + 4], "little")
        footer = _struct(io.BytesIO(data[start:end]))
        if not self._footer:
            self._footer = footer
            self._put(data[:start])
            return
        groups = self._footer[ROW_GROUPS].value.items
        for number, group in enumerate(footer[ROW_GROUPS].value.items, len(groups)):
            _move(group, self._place - len(MAGIC))
            if ORDINAL in group:
                group[ORDINAL].value = number
            groups.append(group)
        self._footer[NUM_ROWS].value += footer[NUM_ROWS].value
        self._put(data[len(MAGIC) : start])

    def _put(self, data: Any) -> None:
        self._sink.write(data)
        self._place += len(data)


# Fields of structs, by their numbers in parquet.thrift.
NUM_ROWS, ROW_GROUPS = 3, 4  # of a file
COLUMNS, GROUP_OFFSET, ORDINAL = 1, 5, 7  # of a row group
METADATA, CHUNK_OFFSETS = 3, (2, 4, 6)  # of a column in it: its metadata; where they are, and its indexes
PAGE_OFFSETS = (9, 10, 11, 14)  # of its metadata: where pages of data, of an index, of a dictionary, and a filter are


def _move(group: Any, distance: int) -> None:
    """Add a number of bytes to all places in a file that the metadata of a row group name."""
    places: list[tuple[Any, tuple[int, ...]]] = [(group, (GROUP_OFFSET,))]
    for column in group[COLUMNS].value.items:
        places += [(column, CHUNK_OFFSETS), (column[METADATA].value, PAGE_OFFSETS)]
    for fields, numbers in places:
        for number in numbers:
            if number in fields and fields[number].value > 0:  # 0 where a writer does not tell
                fields[number].value += distance


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
