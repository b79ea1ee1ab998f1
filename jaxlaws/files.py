"""Tables in files: Parquet, CSV and JSON lines, read and written as streams of Arrow tables.

Folders that Hugging Face `datasets` saves are read, too.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import errno
import functools
import io
import itertools
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

from jaxlaws.json_lines import LINES, JsonLines, extended, renamed
from jaxlaws.row_groups import Columns, RowGroups
from jaxlaws.saved import SavedDataset
from jaxlaws.tables import DataError
from jaxlaws.text import blocks, decoded, printable

__all__ = [
    "FORMATS",
    "Reader",
    "Writer",
    "ahead",
    "columns_of",
    "format_of",
    "open_reader",
    "open_writer",
    "parsed",
    "read_whole",
    "whole_file",
]

FORMATS = {"parquet": (".parquet", ".pq"), "csv": (".csv",), "jsonl": (".jsonl", ".ndjson", ".json")}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4"}

BATCH_ROWS = 1 << 18  # of a table at a time, and of a row group written
FEW_ROWS, MANY_ROWS = 1 << 15, 1 << 24  # of row groups that are copied
BATCH_BYTES = 1 << 25  # of wide tables, in place of that
TEXT_ROWS = 1 << 16  # made into text at a time
BLOCK_BYTES = 1 << 21  # of text; Arrow reads up to 32 blocks ahead
SHOWN_ROWS = 50  # of a table for people
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of writing, which do not say of what


def format_of(path: str) -> tuple[str, str | None]:
    """Format and compression of a file, from its suffix."""
    suffixes = PurePath(path).suffixes
    compression = COMPRESSIONS.get(suffixes[-1].lower()) if suffixes else None
    suffix = (suffixes[:-1] if compression else suffixes)[-1:]
    for name, known in FORMATS.items():
        if suffix and suffix[0].lower() in known and not (compression and name == "parquet"):
            return name, compression
    every = ", ".join(suffix for known in FORMATS.values() for suffix in known)
    raise DataError(f"the format of a file is told by its suffix: {every}; or by --from, --to or format=")


class Reader:
    """A table in a file, as an iterator over Arrow tables of a bounded number of rows.

    Attributes:
        format: "parquet", "csv", "jsonl", or "arrow" for a folder.
        schema: The Arrow schema.
        names: The names of all columns, also of those of a Parquet file that are not read, or in whole lines of JSON.
        fraction: The share of the file that a number of rows is, where it can be known.
        regular: Whether it is a file or in memory, and not a stream that may keep its reader waiting.
    """

    def __init__(
        self,
        format: str,
        schema: Any,
        batches: Any,
        fraction: Callable[[int], float | None],
        regular: bool = True,
        names: Sequence[str] = (),
    ):
        self.format, self.schema, self.fraction, self.regular = format, schema, fraction, regular
        self.names = list(names or schema.names)
        self._batches = batches

    @classmethod
    def of(cls, table: Any) -> Reader:
        """A reader of a table in memory."""
        return cls("text", table.schema, table.to_batches(), lambda done: None)

    def renamed(self, new_of: Mapping[str, str]) -> Reader:
        """The same table with other names of some columns."""
        names = [new_of.get(name, name) for name in self.names]
        _check_names(names)
        fields = [field.with_name(new_of.get(field.name, field.name)) for field in self.schema]
        schema = pa.schema(fields, self.schema.metadata)

        def batches() -> Iterator[Any]:
            for table in self:
                if LINES in table.column_names:
                    lines = pa.array(renamed(table[LINES].to_pylist(), new_of), pa.large_string())
                    table = table.set_column(table.column_names.index(LINES), LINES, lines)
                yield from table.rename_columns(schema.names).cast(schema).to_batches()

        return Reader(self.format, schema, batches(), self.fraction, self.regular, names)

    def parsed(self, table: Any, numbers: Collection[str], first_row: int) -> Any:
        """A table that was read here, with numbers in these columns where the file has them as text."""
        return parsed(table, numbers, first_row) if self.format in ("csv", "jsonl") else table

    def __iter__(self) -> Iterator[Any]:
        with _arrow_errors(self.schema.names):
            yield from _joined(self._batches)


@contextlib.contextmanager
def ahead(items: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """The items of an iterator, each made in a thread while the one before it is used.

    At the end, also by an exception, the item that is being made is waited for.
    """

    def made() -> Iterator[Any]:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item

    with ThreadPoolExecutor(1) as pool:
        yield made()


@contextlib.contextmanager
def open_reader(
    path: str,
    format: str | None = None,
    *,
    columns: Collection[str] | None = None,
    numbers: Collection[str] = (),
    text: Collection[str] = (),
    typed: bool = True,
    dates: bool = True,
    lines: bool = False,
) -> Iterator[Reader]:
    """Open a table for reading.

    Args:
        path: A file, a folder that Hugging Face `datasets` saved, or "-" for standard input.
        format: Its format; by default told by the suffix, and for standard input by the first bytes.
        columns: The columns to read, of those there are; by default all.
        numbers: Columns of numbers. CSV gives them as they are written, for `parsed` to read.
        text: Columns of text that repeats, whatever they look like in a CSV file; those of a Parquet file are read as
            dictionaries, and the schema has the types that they have in the file.
        typed: Whether the other columns of a CSV file get the types that its first lines suggest, or stay as written.
        dates: Whether dates and times are such types.
        lines: Whether the other columns of JSON lines are given as whole lines, to the letter.

    Yields:
        The reader.

    Raises:
        DataError: The file is empty, or not of its format.
        OSError: The file cannot be read.
    """
    compression = None
    if format is None and os.path.isdir(path):
        saved = SavedDataset(path, columns)
        _check_names(saved.schema.names)
        yield Reader("arrow", saved.schema, _pieces(saved), lambda done: saved.share)
        return
    with contextlib.ExitStack() as stack:
        source: Any
        if path == "-":
            if sys.stdin is None:
                raise DataError("it is closed")
            source = sys.stdin.buffer
            guess, compression = _sniff(source)
            format = format or guess
        else:
            if format is None:
                format, compression = format_of(path)
            source = stack.enter_context(open(path, "rb"))
        if format == "parquet":
            if path == "-" or not source.seekable():  # its table of contents is at the end
                source = stack.enter_context(_spooled(source))
            with _arrow_errors():
                metadata = pq.read_metadata(source)
                schema = metadata.schema.to_arrow_schema()
                _check_names(schema.names)
                repeating = [field.name for field in schema if field.name in text and _is_text(field.type)]
                # Without pre_buffer and with a small buffer, a row group of any size is read piece by piece.
                file = stack.enter_context(
                    pq.ParquetFile(
                        source, metadata=metadata, read_dictionary=repeating, pre_buffer=False, buffer_size=1 << 20
                    )
                )
                names = schema.names
                wanted = [name for name in names if columns is None or name in columns]
                rows = max(file.metadata.num_rows, 1)
                batches = file.iter_batches(batch_size=_batch_rows(file, wanted), columns=wanted)
                schema = pa.schema([schema.field(name) for name in wanted], schema.metadata)
            yield Reader(format, schema, batches, lambda done: done / rows, names=names)
            return
        size = os.path.getsize(path) if path != "-" and os.path.isfile(path) else 0
        stream = source
        if compression:
            stream = stack.enter_context(pa.CompressedInputStream(pa.PythonFile(source, "r"), compression))
        with _arrow_errors():
            if format == "csv":
                batches = stack.enter_context(_open_csv(stream, columns, {*numbers, *text}, typed, dates))
            else:
                if not size or compression:  # it is read twice
                    source = stack.enter_context(_spooled(stream))
                    size = source.tell()
                chosen = {*numbers, *text} if lines else columns
                batches = JsonLines(source, BLOCK_BYTES, chosen, numbers, lines)
        yield Reader(
            format,
            batches.schema,
            batches,
            lambda done: source.tell() / size if size else None,
            bool(size),
            batches.names if format == "jsonl" else (),
        )


@contextlib.contextmanager
def _spooled(source: Any) -> Iterator[Any]:
    """A stream as a file that can be read more than once."""
    with tempfile.TemporaryFile() as file:
        try:
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
        except OSError as error:
            if error.errno in NO_ROOM:
                raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from None
            raise
        yield file


def _is_text(type: Any) -> bool:
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type))


def _joined(batches: Any) -> Iterator[Any]:
    """Small batches, as blocks of text and small row groups give them, put together."""
    held: list[Any] = []
    rows = size = 0
    for batch in batches:
        if batch.num_rows:
            held.append(batch)
            rows += batch.num_rows
            size += batch.nbytes
        if rows >= BATCH_ROWS or size >= BATCH_BYTES:
            yield pa.Table.from_batches(held)
            held = []
            rows = size = 0
    if held:
        yield pa.Table.from_batches(held)


def _sniff(source: Any) -> tuple[str, str | None]:
    """Format and compression of standard input, from its first bytes."""
    start = source.peek(64)
    for magic, compression in MAGIC.items():
        if start.startswith(magic):
            beginning = pa.CompressedInputStream(pa.BufferReader(source.peek(1 << 12)), compression)
            with beginning, contextlib.suppress(OSError):  # only the beginning is there
                start = beginning.read(16)
            return _text_format(start), compression
    return "parquet" if start.startswith(b"PAR1") else _text_format(start), None


def _text_format(start: bytes) -> str:
    return "jsonl" if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")) else "csv"


def _batch_rows(file: Any, columns: Sequence[str]) -> int:
    """How many rows of a Parquet file to read at a time, told by the size of its first ones."""
    first = next(file.iter_batches(batch_size=1024, columns=columns), None)
    return BATCH_ROWS if first is None else _rows_at_a_time(first)


def _rows_at_a_time(batch: Any) -> int:
    """How many rows like these make a table of a bounded size."""
    if not batch.num_rows:
        return BATCH_ROWS
    return int(max(min(BATCH_ROWS, BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)), 1024))


def _pieces(batches: Any) -> Iterator[Any]:
    """Batches of any size in pieces of a bounded one."""
    for batch in batches:
        rows = _rows_at_a_time(batch)
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _open_csv(source: Any, columns: Collection[str] | None, text: Collection[str], typed: bool, dates: bool) -> Any:
    # One thread, since only then an error tells its line.
    options = {"read_options": pa.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False)}
    first, whole = _first_block(source)
    names: list[str] = []
    with contextlib.suppress(csv.Error):  # Arrow tells what is wrong
        names = next(csv.reader(io.StringIO(decoded(first, 1), newline="")), [])
    with _arrow_errors(names):
        seen = pa.csv.open_csv(io.BytesIO(first), **options)
    names = seen.schema.names
    _check_names(names)
    types = dict.fromkeys(names, pa.string())
    if typed:
        written = pa.csv.ConvertOptions(column_types=types)
        sample = pa.csv.open_csv(io.BytesIO(first), convert_options=written, **options)
        types |= _types(seen.read_all(), sample.read_all(), text, dates)
    convert = pa.csv.ConvertOptions(
        column_types=types, include_columns=[name for name in names if columns is None or name in columns]
    )
    return pa.csv.open_csv(whole, convert_options=convert, **options)


def _types(guessed: Any, written: Any, text: Collection[str], dates: bool) -> dict[str, Any]:
    """The types that Arrow guessed for the columns of the first lines, where they lose nothing of what is written."""
    types = {}
    for name in guessed.column_names:
        column = guessed[name]
        keep = name not in text and not pa.types.is_null(column.type)
        keep = keep and (dates or not pa.types.is_temporal(column.type))
        if keep and pa.types.is_floating(column.type):  # which may round integers
            keep = not pc.any(pc.match_substring_regex(written[name], r"^\s*[+-]?\d{16,}\s*$")).as_py()
        if keep and _loses_nothing(column, written[name]):
            types[name] = column.type
    return types


def _loses_nothing(column: Any, written: Any) -> bool:
    """Whether values tell how they are written, where they are numbers: not 007, 0x1f or 12e4567."""
    if pa.types.is_integer(column.type):
        same = pc.equal(column.cast(pa.string()), pc.utf8_trim_whitespace(written))
        return pc.all(same).as_py() is not False
    return not (pa.types.is_floating(column.type) and pc.any(pc.is_inf(column)).as_py())


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{names.count(name)} columns are called {name!r}")


def _first_block(source: Any) -> tuple[bytes, Any]:
    """The first lines of a stream, and the whole stream: types are told by the first lines, once for all."""
    rest = blocks(source, BLOCK_BYTES)
    first = next(rest, b"")
    if not decoded(first, 1).strip():
        raise DataError("the file is empty")
    return first, io.BufferedReader(_Checked(itertools.chain([first], rest)), 1 << 20)


class _Checked(io.RawIOBase):
    """A stream of blocks of text, which must be UTF-8."""

    def __init__(self, blocks: Iterator[bytes]):
        self._blocks, self._block, self._line = blocks, memoryview(b""), 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._block:
            block = next(self._blocks, None)
            if block is None:
                return 0
            decoded(block, self._line)
            self._line += block.count(b"\n")
            self._block = memoryview(block)
        data = self._block[: len(buffer)]
        buffer[: len(data)] = data
        self._block = self._block[len(data) :]
        return len(data)


@contextlib.contextmanager
def _arrow_errors(names: Sequence[str] = ()) -> Iterator[None]:
    """Errors of Arrow as DataError, in one line, with the name of the column for its number."""
    try:
        yield
    except UnicodeDecodeError:
        raise DataError("the text is not UTF-8") from None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        text = re.sub(r"\.? in row \d+$", "", " ".join(str(error).split()))  # a row of some block
        column = re.match(r"In CSV column #(\d+): (?:Row #(\d+): )?(.*)", text)
        if column and int(column[1]) < len(names):
            line = f" in line {column[2]}" if column[2] else ""
            text = f"column {names[int(column[1])]!r} is of another type{line} than in the first lines: {column[3]}"
            text += "; CSV to CSV keeps columns as they are"
        raise DataError(printable(_with_hint(text, names))) from None


def _with_hint(text: str, names: Sequence[str]) -> str:
    """An error of Arrow about the columns of a line of a CSV file, with what to do about it."""
    found = re.match(r"CSV parse error: Row #(\d+): (Expected \d+ columns, got \d+): ?(.*)", text)
    if found is None:
        return text
    number, what, row = found.groups()
    marks = [mark for mark in ";\t|" if len(names) == 1 and mark in names[0]]
    hint = "put values that hold a comma in quotes"
    if row.count('"') % 2:
        hint = "a quotation mark has no partner"
    elif names and names[0].lstrip().startswith("#"):
        hint = "take out the comment in the first line, where the names of the columns are needed"
    elif row.startswith("#"):
        hint = "take out lines of comments"
    elif marks:
        hint = f"the columns seem to be separated by {marks[0]!r}, where a comma is needed"
    return f"CSV parse error in row {int(number) - 1} below the names of the columns: {what}: {row!r}; {hint}"


def parsed(table: Any, numbers: Collection[str], first_row: int) -> Any:
    """A table with its columns of numbers read from the text that they are written as.

    Raises:
        DataError: A text is no number; rows are counted from `first_row`.
    """
    for i, name in enumerate(table.column_names):
        if name in numbers and pa.types.is_string(table.schema.types[i]):
            text = _words(table[name])
            try:
                column = pc.cast(text, pa.float64())
            except pa.ArrowInvalid:
                wrong = [(row, word) for row, word in enumerate(text.to_pylist(), first_row) if not _is_number(word)]
                shown = ", ".join(f"{word!r} in row {row}" for row, word in wrong[:5])
                more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
                raise DataError(f"column {name!r} must hold numbers: {shown}{more}") from None
            table = table.set_column(i, name, column)
    return table


def _words(text: Any) -> Any:
    """A column of text without the space around it, and without a value where there is nothing else."""
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(text, ""), None, text)


def read_whole(path: str, format: str | None = None) -> Any:
    """A table in memory, from what `open_reader` takes; columns of a CSV file are numbers where every value is one.

    Raises:
        DataError: The file is empty, or not of its format.
        OSError: The file cannot be read.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(map(repr, FORMATS))}, not {format!r}")
    with open_reader(path, format, typed=False) as reader:
        tables = list(reader)
    table = pa.concat_tables(tables) if tables else reader.schema.empty_table()
    if reader.format == "csv":
        for i, name in enumerate(table.column_names):
            if name != "group":  # names of groups, also where they look like numbers
                table = table.set_column(i, name, _numbers_or_text(table[name]))
    return table


def _numbers_or_text(text: Any) -> Any:
    words = _words(text)
    for type in (pa.int64(), pa.float64()) if words.null_count < len(words) else ():
        with contextlib.suppress(pa.ArrowInvalid):
            column = pc.cast(words, type)
            return column if _loses_nothing(column, text) else text
    return text


def _is_number(text: str | None) -> bool:
    try:
        pc.cast(pa.scalar(text), pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


class _Sink(io.RawIOBase):
    """A file for writing that does not belong to Arrow, which writes the end of a file even after an error."""

    def __init__(self, file: Any):
        self._under, self.open = file, True

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.open:
            self._under.write(data)
        return len(data)

    def flush(self) -> None:
        if self.open:
            self._under.flush()


class Writer:
    """Writes Arrow tables of the same columns to a file, one after another."""

    def __init__(
        self,
        file: Any,
        format: str,
        path: str,
        compression: str | None = None,
        like: Any = None,
        beside: Columns | None = None,
    ):
        self._file, self._format, self._path, self._like, self._beside = _Sink(file), format, path, like, beside
        self._sink: Any = self._file
        if compression:
            self._sink = pa.CompressedOutputStream(pa.PythonFile(self._file, "w"), compression)
        self._parquet: Any = None
        self._shown: list[Any] = []
        self._rows = 0

    def write(self, table: Any) -> None:
        """Append a table."""
        with self._errors():
            if self._format == "parquet":
                if self._parquet is None:
                    described = _as_text(table.schema, self._like)
                    if self._beside is not None:
                        described = pa.schema([*self._beside.schema, *table.schema], self._beside.schema.metadata)
                    encode = functools.partial(_parquet, table.schema, described)
                    self._parquet = RowGroups(self._sink, encode, self._beside)
                self._parquet.write(table)
            elif self._format == "text":
                self._shown.append(table[: max(SHOWN_ROWS - self._rows, 0)])
            else:
                if self._format == "csv" and not self._rows:
                    self._sink.write(self._safe(_csv_header(table.schema)))
                to_bytes = _csv if self._format == "csv" else _json_lines
                for start in range(0, len(table), TEXT_ROWS):
                    self._sink.write(self._safe(to_bytes(table[start : start + TEXT_ROWS])))
            self._rows += len(table)

    def _safe(self, text: bytes) -> bytes:
        """Whole lines of text, without what a terminal would obey if they go to one."""
        return printable(text.decode()).encode() if self._path == "-" and sys.stdout.isatty() else text

    def close(self) -> None:
        """Finish the file."""
        with self._errors():
            if self._parquet is not None:
                self._parquet.close()
            if self._shown:
                self._sink.write(_text(pa.concat_tables(self._shown), self._rows).encode())
            if self._sink is not self._file:
                self._sink.close()
            self._file.flush()

    def abandon(self) -> None:
        """Let go of the file after an error: nothing more is written, so that no stream looks whole."""
        self._shown = []
        self._file.open = False
        if self._parquet is not None:
            self._parquet.abandon()
        with contextlib.suppress(Exception):  # the first error is the one to tell
            self.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with _arrow_errors():
                yield
        except OSError as error:
            path = "standard output" if self._path == "-" else self._path
            raise OSError(error.errno, os.strerror(error.errno or 0), path) from None


def _parquet(schema: Any, described: Any, table: Any) -> Any:
    """A Parquet file in memory, with a schema that it describes its columns by."""
    # Predictions hardly repeat: a dictionary of them costs time and saves nothing.
    repeating = [field.name for field in schema if not pa.types.is_floating(field.type)]
    options = {} if int(pa.__version__.split(".")[0]) < 23 else {"max_rows_per_page": BATCH_ROWS}  # else 20,000: slow
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, use_dictionary=repeating, store_schema=False, **options) as writer:
        with contextlib.suppress(pa.ArrowException):  # Arrow drops a dictionary when the next one differs
            table = table.unify_dictionaries()
        writer.write_table(table, row_group_size=max(len(table), 1))
        texts = {**(described.metadata or {}), "ARROW:schema": base64.b64encode(described.serialize())}
        writer.add_key_value_metadata(texts)
    return sink.getvalue()


def _as_text(schema: Any, like: Any) -> Any:
    """A schema in which text that came as a dictionary is text, as in another one, to the readers of the file."""
    for i, field in enumerate(schema):
        if pa.types.is_dictionary(field.type) and like is not None and field.name in like.names:
            schema = schema.set(i, like.field(field.name))
    return schema


def columns_of(path: str, format: str | None) -> Columns | None:
    """The columns of a Parquet file, if a Parquet file can be made of them and of others without encoding them again.

    Row groups stay as they are: they must not be so short that they cost time, or so long that they cost memory.
    """
    wrong = (DataError, OSError, ValueError, LookupError, pa.ArrowException)
    with contextlib.suppress(*wrong), contextlib.ExitStack() as opened:
        if path != "-" and os.path.isfile(path) and (format or format_of(path)[0]) == "parquet":
            columns = Columns(opened.enter_context(open(path, "rb")))
            rows = columns.rows
            long = len(rows) == 1 or sum(rows) >= FEW_ROWS * len(rows)
            if columns.copyable and long and min(rows) > 0 and max(rows) <= MANY_ROWS:
                opened.pop_all()  # the caller closes it
                return columns
    return None  # what is wrong with the file is told by who reads it


def _csv_header(schema: Any) -> bytes:
    for field in schema:
        if pa.types.is_nested(field.type):
            raise DataError(f"CSV cannot hold column {field.name!r} of type {field.type}; Parquet and JSON lines can")
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(schema.names)
    return line.getvalue().encode()


def _csv(table: Any) -> bytes:
    # Arrow quotes either every text or none.
    texts = [column for column in table.columns if not pa.types.is_floating(column.type)]
    special = any(pc.any(pc.match_substring_regex(c.cast(pa.string()), '[",\r\n]')).as_py() for c in texts)
    sink = pa.BufferOutputStream()
    style = "needed" if special else "none"
    pa.csv.write_csv(table, sink, pa.csv.WriteOptions(include_header=False, quoting_style=style))
    found: bytes = sink.getvalue().to_pybytes()
    return found


def _json_lines(table: Any) -> bytes:
    columns = [
        # NaN and infinity have no JSON; null is what readers make of them.
        pc.if_else(pc.is_finite(column), column, pa.nulls(len(column), column.type))  # for None it would load pandas
        if pa.types.is_floating(column.type)
        else column
        for column in table.columns
    ]
    rows = pa.Table.from_arrays(columns, schema=table.schema).to_pylist()
    lines = [row.pop(LINES) for row in rows] if LINES in table.column_names else ["{}"] * len(rows)
    return "".join(extended(lines, [json.dumps(row, default=_json_value, ensure_ascii=False) for row in rows])).encode()


def _json_value(value: Any) -> str:
    if isinstance(value, bytes):
        raise DataError("JSON cannot hold a column of bytes; Parquet can")
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


def _text(table: Any, rows: int) -> str:
    from jaxlaws.display import print_table

    text = io.StringIO()
    cells = [[f"{x:.6g}" if isinstance(x, float) else str(x) for x in row.values()] for row in table.to_pylist()]
    print_table(table.column_names, cells, file=text)
    more = f"... and {rows - len(table):,} more rows; -o FILE keeps them all\n" if rows > len(table) else ""
    return text.getvalue() + more


@contextlib.contextmanager
def open_writer(
    path: str,
    format: str,
    compression: str | None = None,
    like: Any = None,
    beside: Columns | None = None,
) -> Iterator[Writer]:
    """Open a table for writing; a file appears under its name when it is whole, and not at all after an error.

    Args:
        path: A file, or "-" for standard output.
        format: "parquet", "csv", "jsonl", or "text": the first rows for people to read.
        compression: Compression of the whole file, as Arrow calls it.
        like: A schema whose types the columns of a Parquet file have that are written as dictionaries.
        beside: Columns of another Parquet file, to which those of the tables are added.

    Yields:
        The writer.

    Raises:
        OSError: The file cannot be written.
    """
    with contextlib.nullcontext(sys.stdout.buffer) if path == "-" else whole_file(path) as file:
        writer = Writer(file, format, path, compression, like, beside)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        writer.close()


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[Any]:
    """Open a file of bytes for writing that appears under its name when it is whole, and not at all after an error.

    Raises:
        OSError: The file cannot be written.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a device or a pipe is written to, not replaced
        with _opened(path, path) as file:
            yield file
        return
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    _remove_parts(folder, name)
    part = os.path.join(folder, f".{name}.{os.urandom(8).hex()}.part")
    with (
        _removed_when_terminated(part),
        contextlib.ExitStack() as lock,
    ):  # from before it is there until it has its name
        try:
            with _opened(part, path, lock) as file:
                yield file
            if os.path.exists(target):
                shutil.copymode(target, part)
            os.replace(part, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            raise


@contextlib.contextmanager
def _opened(path: str, shown: str, lock: contextlib.ExitStack | None = None) -> Iterator[Any]:
    """A file for writing, whose errors name the path shown to the user; locked until the stack is closed."""
    try:
        file = open(path, "wb")  # noqa: SIM115 (closed below)
        while lock is not None and not _locked(file, lock):  # removed by another run before it was locked
            file.close()
            file = open(path, "wb")  # noqa: SIM115
    except OSError as error:
        raise OSError(error.errno, error.strerror, shown) from None
    try:
        yield file
        file.close()
    except BaseException as error:
        with contextlib.suppress(OSError):  # what could not be written before cannot be written now
            file.close()
        if isinstance(error, OSError) and error.errno in NO_ROOM and error.filename is None:
            raise OSError(error.errno, error.strerror, shown) from None
        raise


def _locked(file: Any, lock: contextlib.ExitStack) -> bool:
    """Lock a part of a file, so that other runs know that it is written; False if it is gone already."""
    if fcntl is None:
        return True
    lock.callback(os.close, os.dup(file.fileno()))  # the lock lasts until both are closed
    with contextlib.suppress(OSError):  # some file systems have no locks
        fcntl.flock(file, fcntl.LOCK_EX)
    return os.fstat(file.fileno()).st_nlink > 0


def _remove_parts(folder: str, name: str) -> None:
    """Remove the parts of a file that nobody writes any more, as their run was killed."""
    with contextlib.suppress(OSError):  # what is wrong with the folder is told where the file is opened
        for other in os.listdir(folder) if fcntl is not None else ():
            if re.fullmatch(rf"\.{re.escape(name)}\.[0-9a-f]+\.part", other):
                path = os.path.join(folder, other)
                with contextlib.suppress(OSError), open(path, "rb") as file:  # which may be locked
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(path)


@contextlib.contextmanager
def _removed_when_terminated(path: str) -> Iterator[None]:
    def terminate(number: int, frame: Any) -> None:  # no exception, which may arrive where exceptions are ignored
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        if callable(before):  # another file, around this one
            before(number, frame)
        os._exit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
