"""A large batch of problems, solved on all cores."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlaws.arguments import setting

__all__ = ["in_pieces"]

PIECE = 1024  # problems; the cores take pieces in turn, and batches of any length share the program of a piece


def in_pieces(
    solve: Callable[..., Any], shape: tuple[int, ...], arrays: tuple[Any, ...], core_ndims: tuple[Any, ...], dtype: Any
) -> Any:
    """`solve(shape, *arrays)`, whose results have the batch axes first; on a CPU, large batches piece by piece.

    XLA runs the search of one call in one thread, so that every core gets calls of its own. Pieces are cut along the
    first axis, and have the same length: the last one starts early enough.

    Args:
        solve: A compiled function, in which no problem depends on another.
        shape: The batch axes.
        arrays: What is solved, no tracers; every array has the batch axes, some of the last of them, or none.
        core_ndims: For each of the arrays, how many axes it has besides.
        dtype: What the problems are solved in.
    """
    length = max(1, PIECE // max(1, math.prod(shape[1:])))
    one_device = jax.default_backend() == "cpu" and jax.device_count() == 1
    if math.prod(shape) <= PIECE or shape[0] <= length or not one_device:
        return solve(shape, *arrays)
    leaves, tree = jax.tree.flatten(arrays)
    leaves = list(map(np.asarray, leaves))
    cut = [
        leaf.ndim - core == len(shape) and leaf.shape[0] == shape[0]
        for leaf, core in zip(leaves, jax.tree.leaves(core_ndims), strict=True)
    ]

    def piece(start: int) -> Any:
        rows = slice(start, start + length)
        part = [leaf[rows] if c else leaf for leaf, c in zip(leaves, cut, strict=True)]
        with setting(dtype):  # which is one of each thread
            return solve((length, *shape[1:]), *jax.tree.unflatten(tree, part))

    def solved(start: int) -> Any:
        return jax.tree.map(np.asarray, piece(start))

    last = shape[0] - length
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        first = pool.submit(piece, 0).result()  # compiled by one thread, and not by each; solved beside the others
        rest = list(pool.map(solved, [*range(length, last, length), last]))
    rest[-1] = jax.tree.map(lambda x: x[-((shape[0] - 1) % length + 1) :], rest[-1])
    return jax.tree.map(lambda *parts: jnp.asarray(np.concatenate(parts)), first, *rest)
