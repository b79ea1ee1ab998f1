"""What the searches share: options that broadcast, and batches whose axis is the last one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlaws.arguments import arguments, broadcast_shape, number
from jaxlaws.law import Law, variables

__all__ = ["Problems", "batched", "block_size", "in_blocks", "prepared", "rows"]

BLOCK = 256  # problems that are solved together, at most: few wait for the one that takes longest
MATRICES = 1 << 15  # numbers in the matrices of a block, at most: they stay in the cache


def _filled(law: Law, name: str, array: Any, core: tuple[int, ...]) -> Any:
    """An option with its own axes in full: one number stands for all."""
    if not array.ndim:
        return jnp.broadcast_to(array, core) if isinstance(array, jax.Array) else np.full(core, array)
    if array.shape[array.ndim - len(core) :] != core:
        raise ValueError(f"{law.name}: {name} has shape {array.shape}; it must end in {core}")
    return array


def _single(group: Any, *given: Any) -> bool:
    """Whether arrays of float32 are given, and none of float64."""
    leaves = [*jax.tree.leaves(given), *([] if isinstance(group, str) else jax.tree.leaves(group))]
    own = {x.dtype for x in leaves if isinstance(x, (jax.Array, np.ndarray)) and x.dtype.kind == "f"}
    return np.dtype(np.float32) in own and np.dtype(np.float64) not in own


class Prepared(NamedTuple):
    """The arguments of a search as arrays: options by name, what a law takes, their dtype and the batch axes."""

    values: dict[str, Any]
    arrays: Any
    dtype: Any
    shape: tuple[int, ...]
    traced: bool


def prepared(
    law: Law,
    group: Any,
    given: Mapping[str, Any],
    searched: Mapping[str, tuple[int, ...]],
    options: Mapping[str, tuple[Any, tuple[int, ...]]],
) -> Prepared:
    """All arguments of a search, which broadcast; options and what is searched for come with their own axes."""
    values = {name: _filled(law, name, number(value, name), core) for name, (value, core) in options.items()}
    dtype = np.float32 if _single(group, given, [value for value, _ in options.values()]) else np.float64
    # In place of what is searched for, numbers that sum to 1.
    everything = {**given, **{name: np.full(core, 1 / math.prod(core), dtype) for name, core in searched.items()}}
    arrays, dtype, shape = arguments(law, group, everything, {}, None)
    batches = {name: array.shape[: array.ndim - len(options[name][1])] for name, array in values.items()}
    shape = broadcast_shape(law, {"inputs": shape, **batches})
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((arrays, values)))
    return Prepared(values, arrays, dtype, shape, traced)


def columns(array: Any, shape: tuple[int, ...], core: int) -> jax.Array:
    """An array with the axes of the batch as one, the last, after its own."""
    array = jnp.broadcast_to(array, (*shape, *array.shape[array.ndim - core :]))
    return jnp.moveaxis(array.reshape(math.prod(shape), *array.shape[len(shape) :]), 0, -1)


def record_columns(values: Any, shape: tuple[int, ...]) -> Any:
    """The same for every field of a record."""
    return _of_fields(values, lambda array, core: columns(array, shape, core))


def _of_fields(values: Any, fn: Callable[[Any, int], Any]) -> Any:
    fields: Mapping[str, Any] = {v.name: fn(getattr(values, v.name), len(v.shape)) for v in variables(type(values))}
    return type(values)(**fields)


def rows(found: Any, shape: tuple[int, ...]) -> Any:
    """Results with the axes of the batch first."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0).reshape(*shape, *x.shape[:-1]), found)


class Problems(NamedTuple):
    """A batch of problems.

    Attributes:
        values: The options by name, with their own axes last.
        cores: How many axes of its own each option has; 1 where nothing is said.
        arrays: Coefficients, ids of groups, and inputs, as `arguments` gives them.
        found: Records of what is known of each problem, with the axes of the batch first.
        shape: The axes of the batch.
        dtype: What the problems are solved in.
    """

    values: Mapping[str, Any]
    cores: Mapping[str, int]
    arrays: Any
    found: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: Any

    def whole(self) -> tuple[Any, ...]:
        """All of them, with the batch as the last axis: what a search takes."""
        coefs, ids, inputs, _ = self.arrays
        if ids is not None:
            coefs = jax.tree.map(lambda leaf: jnp.take(leaf, ids, axis=0, mode="fill"), coefs)
        data = {name: columns(value, self.shape, self.cores.get(name, 1)) for name, value in self.values.items()}
        data |= {"coefs": record_columns(coefs, self.shape), "inputs": record_columns(inputs, self.shape)}
        return data, *(record_columns(each, self.shape) for each in self.found)

    def at(self, which: np.ndarray) -> tuple[Any, ...]:
        """The same for some of them, by position, in NumPy."""
        index = np.unravel_index(which, self.shape) if self.shape else ()

        def of(array: Any, core: int) -> Any:
            array = np.asarray(array)
            axes = array.ndim - core
            if not axes:
                full = np.empty((*array.shape, len(which)), array.dtype)  # which takes less time than to broadcast
                full[...] = array[..., None]
                return full
            place = [i if n > 1 else 0 for i, n in zip(index[-axes:], array.shape, strict=False)]
            chosen = np.broadcast_to(array[tuple(place)], (len(which), *array.shape[axes:]))
            return np.moveaxis(chosen, 0, -1)

        coefs, ids, inputs, _ = self.arrays
        if ids is not None:  # every problem has its group
            mine = of(ids, 0)
            coefs = jax.tree.map(lambda leaf: np.asarray(leaf)[mine], coefs)
            coefs = _of_fields(coefs, lambda array, core: np.moveaxis(array, 0, -1))
        else:
            coefs = _of_fields(coefs, of)
        data = {name: of(value, self.cores.get(name, 1)) for name, value in self.values.items()}
        data |= {"coefs": coefs, "inputs": _of_fields(inputs, of)}
        return data, *(_of_fields(each, of) for each in self.found)


def block_size(unknowns: int) -> int:
    """How many problems with so many unknowns are solved together, at most: a power of two."""
    return min(BLOCK, 1 << (max(1, MATRICES // unknowns**2).bit_length() - 1))


def in_blocks(fn: Callable[..., Any], data: tuple[Any, ...], size: int) -> Any:
    """`fn(*data)` along the last axis of all arrays, block by block."""
    count = jax.tree.leaves(data)[0].shape[-1]
    blocks = -(-count // size)
    if blocks <= 1:
        return fn(*data)

    def cut(x: jax.Array) -> jax.Array:
        padding = jnp.broadcast_to(x[..., -1:], (*x.shape[:-1], blocks * size - count))
        return jnp.moveaxis(jnp.concatenate([x, padding], -1).reshape(*x.shape[:-1], blocks, size), -2, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], blocks * size)[..., :count]

    return jax.tree.map(join, lax.map(lambda block: fn(*block), jax.tree.map(cut, data)))


def batched(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` of a batch of problems, whose axis is the last one."""
    return jax.vmap(fn, in_axes=-1, out_axes=-1)
