"""What the searches share: options that broadcast, and batches whose axis is the last one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlaws.law import Law, variables

__all__ = ["batched", "block_size", "columns", "filled", "in_blocks", "record_columns", "rows", "single"]

BLOCK = 256  # problems that are solved together, at most: few wait for the one that takes longest
MATRICES = 1 << 15  # numbers in the matrices of a block, at most: they stay in the cache


def filled(law: Law, name: str, array: Any, core: tuple[int, ...]) -> Any:
    """An option with its own axes in full: one number stands for all."""
    if not array.ndim:
        return jnp.broadcast_to(array, core) if isinstance(array, jax.Array) else np.broadcast_to(array, core)
    if array.shape[array.ndim - len(core) :] != core:
        raise ValueError(f"{law.name}: {name} has shape {array.shape}; it must end in {core}")
    return array


def single(group: Any, *given: Any) -> bool:
    """Whether arrays of float32 are given, and none of float64."""
    leaves = [*jax.tree.leaves(given), *([] if isinstance(group, str) else jax.tree.leaves(group))]
    own = {x.dtype for x in leaves if isinstance(x, (jax.Array, np.ndarray)) and x.dtype.kind == "f"}
    return np.dtype(np.float32) in own and np.dtype(np.float64) not in own


def columns(array: Any, shape: tuple[int, ...], core: int) -> jax.Array:
    """An array with the axes of the batch as one, the last, after its own."""
    array = jnp.broadcast_to(array, (*shape, *array.shape[array.ndim - core :]))
    return jnp.moveaxis(array.reshape(math.prod(shape), *array.shape[len(shape) :]), 0, -1)


def record_columns(values: Any, shape: tuple[int, ...]) -> Any:
    """The same for every field of a record."""
    fields: Mapping[str, Any] = {
        v.name: columns(getattr(values, v.name), shape, len(v.shape)) for v in variables(type(values))
    }
    return type(values)(**fields)


def rows(found: Any, shape: tuple[int, ...]) -> Any:
    """Results with the axes of the batch first."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0).reshape(*shape, *x.shape[:-1]), found)


def block_size(unknowns: int) -> int:
    """How many problems with so many unknowns make a block: a power of two."""
    return min(BLOCK, 1 << (max(1, MATRICES // unknowns**2).bit_length() - 1))


def in_blocks(fn: Callable[[Any], Any], data: Any, size: int) -> Any:
    """`fn(data)` along the last axis of all arrays, block by block."""
    count = jax.tree.leaves(data)[0].shape[-1]
    blocks = -(-count // size)
    if blocks <= 1:
        return fn(data)

    def cut(x: jax.Array) -> jax.Array:
        padding = jnp.broadcast_to(x[..., -1:], (*x.shape[:-1], blocks * size - count))
        return jnp.moveaxis(jnp.concatenate([x, padding], -1).reshape(*x.shape[:-1], blocks, size), -2, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], blocks * size)[..., :count]

    return jax.tree.map(join, lax.map(fn, jax.tree.map(cut, data)))


def batched(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` of a batch of problems, whose axis is the last one."""
    return jax.vmap(fn, in_axes=-1, out_axes=-1)
