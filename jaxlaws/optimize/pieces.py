"""Batches of problems of any length, solved on all cores by programs of a few sizes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from jaxlaws.arguments import setting
from jaxlaws.optimize.batches import Problems
from jaxlaws.programs import LONG_VECTORS, QUICK, Program

__all__ = ["Search", "in_pieces"]

SIZES = 8, 64  # problems that a piece is filled up to, where that is less than the most
FEW = 64


class Search:
    """A function of static arguments and of problems whose axis is the last one, compiled for few or for many of them.

    Args:
        fn: The function.
        static: How many of its first arguments are static.
        few: Up to how many problems a program should rather be compiled fast than run fast.
    """

    def __init__(self, fn: Callable[..., Any], static: int, few: int = FEW):
        self._static, self._most = static, few
        self._few, self._many = (Program(fn, static, options) for options in (QUICK, LONG_VECTORS))

    def __call__(self, *args: Any) -> Any:
        """Solve the problems."""
        count = jax.tree.leaves(args[self._static :])[0].shape[-1]
        return (self._few if count <= self._most else self._many)(*args)


def in_pieces(solve: Callable[..., Any], problems: Problems, most: int, chosen: np.ndarray | None = None) -> Any:
    """What `solve` makes of problems, piece by piece, as NumPy arrays with the axes of the batch first.

    XLA runs the search of one call in one thread, so that every core gets calls of its own. The last piece is filled up
    with its last problem to one of three sizes, so that batches of any length share a few programs.

    Args:
        solve: A compiled function of what `problems.at` gives, in which no problem depends on another.
        problems: The problems, at least one, no tracers.
        most: The number of problems in a piece, at most.
        chosen: Which of the problems are solved, by position; the results then have one axis for all of these.
    """
    which = np.arange(math.prod(problems.shape)) if chosen is None else chosen

    def begun(start: int) -> tuple[Any, int]:
        """What is computed, maybe still, and how much of it counts."""
        piece = which[start : start + most]
        size = next((size for size in SIZES if len(piece) <= size < most), most)
        filled = np.append(piece, np.full(size - len(piece), piece[-1]))
        with setting(problems.dtype):  # which is one of each thread
            return solve(*problems.at(filled)), len(piece)

    def ended(found: Any, count: int) -> list[np.ndarray]:
        arrays = map(np.asarray, jax.tree.leaves(found))
        return [x.transpose(x.ndim - 1, *range(x.ndim - 1))[:count] for x in arrays]

    starts = range(0, len(which), most)
    first = begun(starts[0])  # compiled by one thread, and not by each; solved beside the others
    rest: list[list[np.ndarray]] = []
    if len(starts) > 1:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rest += pool.map(lambda start: ended(*begun(start)), starts[1:])
    parts = [ended(*first), *rest]
    found = [np.concatenate(each) for each in zip(*parts, strict=True)] if len(parts) > 1 else parts[0]
    if chosen is None:
        found = [x.reshape((*problems.shape, *x.shape[1:])) for x in found]
    return jax.tree.unflatten(jax.tree.structure(first[0]), found)
