"""Folders that Hugging Face `datasets` saves (`save_to_disk`), read as it reads them, without that package.

`state.json` lists Arrow streams, whose rows follow one another. Old versions may also name a part of a stream (`skip`
and `take`), or streams of indices, which select rows; newer ones write the rows that are selected. A dict of datasets
has `dataset_dict.json`, which lists splits, and a folder for each.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator
from typing import Any

import pyarrow as pa

from jaxlaws.tables import DataError
from jaxlaws.text import printable

__all__ = ["SavedDataset"]

STATE, SPLITS = "state.json", "dataset_dict.json"
END = b"\xff\xff\xff\xff\0\0\0\0"  # of a stream: one that is cut off after some batch looks whole but for this


class SavedDataset:
    """A dataset in a folder, as an iterator over Arrow record batches that lie in the files, mapped into memory.

    Args:
        path: The folder of a dataset, or of a dict of them: then its split "train" is read, or else the first.
        columns: The columns to read, of those there are; by default all.

    Attributes:
        schema: The Arrow schema.
        share: The share of the data that is read so far, where it can be known.

    Raises:
        DataError: It is no such folder, or a file in it is missing or damaged; the message names the file.
        OSError: A file cannot be read.
    """

    def __init__(self, path: str, columns: Collection[str] | None = None):
        self._path = path
        folder = "" if os.path.isfile(os.path.join(path, STATE)) else self._split()
        name = os.path.join(folder, STATE)
        state = self._json(name)
        if not isinstance(state, dict) or "_data_files" not in state:
            raise DataError(f"{name} has no list '_data_files'")
        self._files = self._listed(name, state["_data_files"])
        self._indices = self._listed(name, state.get("_indices_data_files") or [])
        if not self._files:
            raise DataError(f"{name} lists no files of data: the dataset has no rows")
        with self._opened(self._files[0][0]) as (_, reader):
            self._whole = reader.schema
        self._columns = [column for column in self._whole.names if columns is None or column in columns]
        # Without its metadata, which tells datasets of just these columns, and not of those that are added.
        self.schema = pa.schema([self._whole.field(column) for column in self._columns])
        self._size = sum(os.path.getsize(os.path.join(path, file)) for file, *_ in self._files)
        self.share = None if self._indices else 0.0

    def __iter__(self) -> Iterator[Any]:
        if not self._indices:
            read = 0
            for batch in self._rows():
                read += batch.nbytes
                self.share = read / self._size
                yield batch.select(self._columns).replace_schema_metadata()
            return
        table = pa.Table.from_batches(self._rows()).select(self._columns).replace_schema_metadata()
        for name, *part in self._indices:
            for batch in self._batches(name, *part):
                column = batch.column(0) if batch.num_columns == 1 else None
                if column is None or not pa.types.is_integer(column.type) or column.null_count:
                    raise DataError(f"{name} must hold one column of indices")
                with self._errors(name):
                    selected = table.take(column)
                yield from selected.to_batches()

    def _rows(self) -> Iterator[Any]:
        """The batches of all files, whatever indices there are."""
        for name, *part in self._files:
            for batch in self._batches(name, *part):
                if not batch.schema.equals(self._whole):
                    raise DataError(f"{name} has other columns than {self._files[0][0]}")
                yield batch

    def _batches(self, name: str, skip: int | None, take: int | None) -> Iterator[Any]:
        with self._opened(name) as (source, reader):
            yield from reader if skip is None or take is None else reader.read_all().slice(skip, take).to_batches()
            if source.read_at(len(END), source.tell() - len(END)) != END:
                raise DataError(f"{name} is cut off")

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[Any, Any]]:
        with self._errors(name), pa.memory_map(os.path.join(self._path, name)) as source:
            yield source, pa.ipc.open_stream(source)

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Errors of Arrow as DataError, in one line, with the name of the file."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise OSError(error.errno, os.strerror(error.errno), os.path.join(self._path, name)) from None
            raise DataError(f"{name}: {printable(' '.join(str(error).split()))}") from None

    def _split(self) -> str:
        """The folder of the split to read."""
        if not os.path.isfile(os.path.join(self._path, SPLITS)):
            raise DataError(f"a folder saved by Hugging Face datasets has {STATE} or {SPLITS}, and this one neither")
        content = self._json(SPLITS)
        splits = content.get("splits") if isinstance(content, dict) else None
        if not isinstance(splits, list) or not splits or not all(isinstance(split, str) for split in splits):
            raise DataError(f"{SPLITS} lists no splits")
        return "train" if "train" in splits else str(splits[0])

    def _listed(self, name: str, entries: Any) -> list[tuple[str, int | None, int | None]]:
        """The files that a state lists, relative to the folder, each with the rows to skip and to take."""
        files = []
        for entry in entries if isinstance(entries, list) else [None]:
            known = entry if isinstance(entry, dict) else {}
            file, skip, take = (known.get(key) for key in ("filename", "skip", "take"))
            if not isinstance(file, str) or not all(n is None or isinstance(n, int) for n in (skip, take)):
                raise DataError(f"{name} lists {entry!r} in place of a file")
            file = os.path.join(os.path.dirname(name), file)
            if not os.path.isfile(os.path.join(self._path, file)):
                raise DataError(f"{name} lists {file!r}, which is not there")
            files.append((file, skip, take))
        return files

    def _json(self, name: str) -> Any:
        try:
            with open(os.path.join(self._path, name), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            raise DataError(f"{SPLITS} lists a split whose {name} is not there") from None
        except ValueError as error:
            raise DataError(f"{name} is not JSON: {error}") from None
