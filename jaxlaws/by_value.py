"""Pickles of what other processes cannot import: functions and records of a program, a notebook or a law's own file."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import io
import marshal
import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any

__all__ = ["dumps", "importable", "loads", "record_bytes", "record_of"]

HERE_ONLY = ("__main__", "__mp_main__", "law_file")  # modules that are others, or none, in other processes


def importable(thing: Any) -> bool:
    """Whether other processes find a function or a class by its name."""
    return thing.__module__.partition(".")[0] not in HERE_ONLY and _named(thing.__module__, thing.__qualname__) is thing


def dumps(value: Any) -> bytes:
    """A pickle with functions and records by value, unless they are importable; for `loads`."""
    file = io.BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


def loads(data: bytes) -> Any:
    """What `dumps` has written. Functions and records that this process has, too, are its own."""
    return pickle.loads(data)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, types.ModuleType):
            return importlib.import_module, (value.__name__,)
        if isinstance(value, types.FunctionType) and not importable(value):
            return _reduced(value)
        if isinstance(value, type) and dataclasses.is_dataclass(value) and not importable(value):
            return record_of, (record_bytes(value),)
        return NotImplemented


# Records.


def record_bytes(cls: Any) -> bytes:
    """A record by value, for `record_of`."""
    methods = {n: f for n, f in vars(cls).items() if isinstance(f, types.FunctionType) and not n.startswith("__")}
    return dumps((cls.__module__, cls.__qualname__, _fields(cls), methods))


def _fields(cls: Any) -> list[tuple[str, Any]]:
    return [(field.name, field.metadata.get("var")) for field in dataclasses.fields(cls)]


@functools.cache  # records that are one class stay one class
def record_of(data: bytes) -> Any:
    """The record that `record_bytes` was given: that of this process if it has the same fields."""
    from jaxlaws.law import record

    module, qualname, fields, methods = loads(data)
    found = _named(module, qualname)
    if isinstance(found, type) and dataclasses.is_dataclass(found) and repr(_fields(found)) == repr(fields):
        return found
    body = {name: dataclasses.field(metadata={"var": var}) for name, var in fields}
    about = {"__module__": module, "__qualname__": qualname, "__annotations__": dict.fromkeys(body, Any)}
    return record(type(qualname.rpartition(".")[2], (), {**about, **body, **methods}))


# Functions.


def _reduced(fn: types.FunctionType) -> tuple[Any, ...]:
    """A function by value: made first, and then told what it refers to, which may be itself."""
    names = {name for code in _codes(fn.__code__) for name in code.co_names}
    state = {
        "globals": {name: fn.__globals__[name] for name in names if name in fn.__globals__},
        "defaults": (fn.__defaults__, fn.__kwdefaults__),
        "cells": [cell.cell_contents for cell in fn.__closure__ or ()],
    }
    made = (fn.__module__, fn.__qualname__, marshal.dumps(fn.__code__), len(state["cells"]))
    return _function, made, state, None, None, _complete


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code of a function, and of those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _function(module: str, qualname: str, code: bytes, cells: int) -> types.FunctionType:
    """The function, which may be one of this process, or else does not know yet what it refers to."""
    wanted, found = marshal.loads(code), _named(module, qualname)
    if isinstance(found, types.FunctionType) and found.__code__ == wanted:
        return found
    closure = tuple(types.CellType() for _ in range(cells))
    made = types.FunctionType(wanted, {"__name__": module, "__builtins__": __builtins__}, closure=closure or None)
    made.__qualname__ = qualname
    return made


def _complete(fn: types.FunctionType, state: dict[str, Any]) -> None:
    if _named(fn.__module__, fn.__qualname__) is fn:
        return
    fn.__globals__.update(state["globals"])
    fn.__defaults__, fn.__kwdefaults__ = state["defaults"]
    for cell, value in zip(fn.__closure__ or (), state["cells"], strict=True):
        cell.cell_contents = value


def _named(module: str, qualname: str) -> Any:
    """What has this name in this process, or None."""
    found = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found
