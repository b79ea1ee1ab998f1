"""Long columns: the record they make, and functions of them computed in blocks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxlaws.law import Law, variables

__all__ = ["BLOCK", "from_columns", "in_blocks"]

BLOCK = 1 << 17  # rows; small enough that the buffers of a block stay in cache and are reused


def from_columns(law: Law, columns: Sequence[np.ndarray]) -> Any:
    """The record of inputs made of the columns `law.input_columns`, in that order."""
    rest = iter(columns)
    fields = {}
    for v in variables(law.inputs):
        own = [next(rest) for _ in v.column_names(law.sizes)]
        fields[v.name] = np.stack(own, axis=-1) if v.shape else own[0]
    return law.inputs(**fields)


def in_blocks(fn: Callable[[Any], Any], rows: Any, count: int) -> Any:
    """`fn(rows)` computed block by block, into NumPy arrays.

    Args:
        fn: Takes arrays with one leading axis of any length, and returns arrays with the same.
        rows: A pytree of NumPy arrays with a leading axis of length `count`.
        count: The number of rows.

    The last block is filled up to a power of two by repeating its last row, so that tables of any length share a few
    compiled functions.
    """
    result = None
    for start in range(0, max(count, 1), BLOCK):
        stop = min(start + BLOCK, count)
        padding = (1 << max(stop - start - 1, 7).bit_length()) - (stop - start) if 0 < stop - start < BLOCK else 0
        out = fn(jax.tree.map(functools.partial(_block, start=start, stop=stop, padding=padding), rows))
        if result is None:
            result = jax.tree.map(lambda o: np.empty((count, *o.shape[1:]), o.dtype), out)
        for whole, part in zip(jax.tree.leaves(result), jax.tree.leaves(out), strict=True):
            whole[start:stop] = np.asarray(part)[: stop - start]
    return result


def _block(array: np.ndarray, start: int, stop: int, padding: int) -> np.ndarray:
    part = array[start:stop]
    return np.concatenate([part, np.repeat(part[-1:], padding, axis=0)]) if padding else part
