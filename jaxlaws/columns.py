"""Long columns: the record they make, and functions of them computed in blocks."""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxlaws.law import Law, variables

__all__ = ["ALIGNMENT", "BLOCK", "BLOCK_BYTES", "from_columns", "in_blocks"]

BLOCK = 1 << 17  # rows of a table
BLOCK_BYTES = 1 << 23  # of inputs or of results; a block stays in the cache, and memory is used again
ALIGNMENT = 64  # bytes, at which JAX takes arrays of NumPy without a copy on a CPU


def from_columns(law: Law, columns: Sequence[np.ndarray]) -> Any:
    """The record of inputs made of the columns `law.input_columns`, in that order."""
    rest = iter(columns)
    fields = {}
    for v in variables(law.inputs):
        own = [next(rest) for _ in v.column_names(law.sizes)]
        fields[v.name] = np.stack(own, axis=-1) if v.shape else own[0]
    return law.inputs(**fields)


def in_blocks(fn: Callable[[Any], Any], rows: Any, count: int, length: int, out: Any = None) -> Any:
    """`fn(rows)` computed block by block, into NumPy arrays.

    Args:
        fn: Takes arrays with one leading axis of any length, and returns arrays with the same.
        rows: A pytree of NumPy arrays with a leading axis of length `count`.
        count: The number of rows.
        length: The number of rows in a block.
        out: Arrays to write the result to; by default new ones.

    All blocks have the same length, so that one compiled function serves them: the last one starts early enough. Rows
    that do not fill a block are filled up to a power of two by repeating the last, so that tables of any length share a
    few compiled functions.
    """
    if count < length:
        padding = (1 << max(count - 1, 7).bit_length()) - count if count else 0
        if padding:
            rows = jax.tree.map(lambda array: np.concatenate([array, np.repeat(array[-1:], padding, axis=0)]), rows)
        found = fn(rows)
        return _write(slice(count), jax.tree.map(lambda array: array[:count], found), out, count)
    pending: deque[tuple[slice, Any]] = deque()
    # The second block starts where JAX can read the rest of the rows without a copy.
    early = -_first_aligned(rows) % ALIGNMENT
    second = length - early if early < length else length
    for start in sorted({0, *range(second, count - length, length), count - length}):
        part = slice(start, start + length)
        pending.append((part, fn(jax.tree.map(operator.itemgetter(part), rows))))
        if len(pending) > 1:  # one block is computed while the one before it is copied
            out = _write(*pending.popleft(), out, count)
    return _write(*pending.popleft(), out, count)


def _write(part: slice, found: Any, out: Any, count: int) -> Any:
    if out is None:
        out = jax.tree.map(lambda array: _empty((count, *array.shape[1:]), array.dtype), found)
    for whole, array in zip(jax.tree.leaves(out), jax.tree.leaves(found), strict=True):
        whole[part] = np.asarray(array)
    return out


def _first_aligned(rows: Any) -> int:
    """The first row at which all arrays are aligned; 0 if there is none."""
    starts = np.arange(ALIGNMENT)
    aligned = np.all([(a.ctypes.data + starts * a.strides[0]) % ALIGNMENT == 0 for a in jax.tree.leaves(rows)], axis=0)
    return int(np.argmax(aligned))


def _empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A new array, aligned so that JAX can take it without a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    aligned: np.ndarray = memory[start : start + size].view(dtype).reshape(shape)
    return aligned
