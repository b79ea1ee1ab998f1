"""Many starts for many groups, on all cores."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from jaxlaws.arguments import setting
from jaxlaws.fitting.form import Form
from jaxlaws.fitting.levenberg_marquardt import MAX_STEPS, Found, is_robust, refine, search
from jaxlaws.numerics import keep_powers

__all__ = ["rounding", "solve_all", "spread"]

CHUNK = 1 << 12  # rows times problems that are solved together: few wait for the one that takes longest
EXACT = 1e-13  # relative errors that rounding leaves
DISTINCT = 16  # minima of the first search, at most, from which the second one goes on


def spread(ranges: Sequence[tuple[float, float]], count: int, seed: int) -> np.ndarray:
    """Points that fill a box evenly, [number, point]; evenly in logarithms for ranges over more than two decades.

    They are multiples of a generalised golden ratio (Roberts 2018), from an offset that the seed sets.
    """
    if not ranges:
        return np.zeros((0, count))
    ratio = 2.0
    for _ in range(64):
        ratio = (1 + ratio) ** (1 / (len(ranges) + 1))
    steps = ratio ** -np.arange(1.0, len(ranges) + 1)
    offset = np.random.default_rng(seed).random(len(ranges)) if seed else np.full(len(ranges), 0.5)
    part = (offset[:, None] + steps[:, None] * np.arange(count)) % 1
    low, high = np.asarray(ranges, np.float64).T[..., None]
    wide = (low > 0) & (high > 100 * low)
    safe = np.where(wide, low, 1)
    return np.where(wide, safe * (np.where(wide, high, 1) / safe) ** part, low + part * (high - low))


def solve_all(
    form: Form, data: Any, measured: np.ndarray, weight: np.ndarray, start: np.ndarray, warm: bool = False
) -> Found:
    """Where the search ends from every start, for all groups; arguments and results as for `search`, in NumPy.

    Args:
        form: What is fitted.
        data: What `form.predict` takes.
        measured: [group, part, 1, row].
        weight: [group, part, start or 1, row].
        start: [number, group, part, start].
        warm: Whether starts are near the minimum, so that robust objectives need no other one first.
    """
    if weight.shape[2] == 1 and start.shape[-1] > 1:  # starts that differ in linear coefficients only are one
        searched = start[~np.asarray(form.linear)].reshape(-1, start.shape[-1])
        _, first, again = np.unique(searched, axis=1, return_index=True, return_inverse=True)
        if len(first) < start.shape[-1]:
            found = solve_all(form, data, measured, weight, start[..., first], warm)
            return Found(*(values[..., again.ravel()] for values in found))
    run = functools.partial(_in_rounds, form, data, measured, weight)
    if warm and is_robust(form):
        return run("refine", start)
    found = run("search", start)
    least = np.argmin(np.where(np.isnan(found.value), np.inf, found.value), -1)[..., None]
    if not is_robust(form) and np.take_along_axis(found.converged, least, -1).all():
        return found
    if weight.shape[2] > 1:  # every start is a problem of its own
        return run("refine", found.x) if is_robust(form) else run("refine", found.x, found)
    # Starts that have met go on as one.
    chosen, owner = _distinct(found.value, rounding(form, measured, weight))
    index = np.broadcast_to(chosen[None], (len(start), *start.shape[1:3], chosen.shape[-1]))
    refined = run("refine", np.take_along_axis(found.x, index, -1))

    def of_start(values: np.ndarray, others: Any) -> np.ndarray:
        each = np.broadcast_to(np.maximum(owner, 0), (*values.shape[:-1], owner.shape[-1]))
        found: np.ndarray = np.where(owner >= 0, np.take_along_axis(values, each, -1), others)
        return found

    # Where there are too many minima, the worst of them are not gone on from.
    return Found(
        x=of_start(refined.x, found.x),
        value=of_start(refined.value, np.inf if is_robust(form) else found.value),
        converged=of_start(refined.converged, False),
        steps=found.steps + of_start(refined.steps, 0),
        delta=of_start(refined.delta, found.delta),
    )


def rounding(form: Form, measured: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What rounding may leave of the objective where every run is met, [group, part, 1]; or of all groups together."""
    size = measured if form.objective == "squared" else 1.0
    least: np.ndarray = EXACT**2 * (weight * size**2).sum(-1)
    return least.sum((0, 1), keepdims=True) if form.shared else least


def _distinct(value: np.ndarray, rounding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of values along the last axis, the places of the least ones that differ, and to which of them each belongs."""
    flat = value.reshape(-1, value.shape[-1])
    least = np.broadcast_to(rounding, (*value.shape[:-1], 1)).ravel()
    chosen = np.zeros((len(flat), min(DISTINCT, flat.shape[1])), int)
    owner = np.full(flat.shape, -1)
    for row, values in enumerate(np.where(flat <= least[:, None], 0, flat)):
        order = np.argsort(values, kind="stable")
        ranked = values[order]
        new = np.isfinite(ranked) & ~(np.diff(ranked, prepend=-np.inf) <= 1e-6 * np.abs(ranked))
        rank = np.cumsum(new) - 1
        first = order[new][: chosen.shape[1]]
        chosen[row] = np.resize(first, chosen.shape[1]) if len(first) else 0
        owner[row, order] = np.where(np.isfinite(ranked) & (rank < chosen.shape[1]), rank, -1)
    return chosen.reshape(*value.shape[:-1], -1), owner.reshape(value.shape)


# Steps; after each number of them, the starts that are still on their way go on among themselves.
ROUNDS = {"search": (12, 24, 60), "refine": (12, 24, MAX_STEPS)}


def _in_rounds(
    form: Form,
    data: Any,
    measured: np.ndarray,
    weight: np.ndarray,
    phase: str,
    start: np.ndarray,
    found: Found | None = None,
) -> Found:
    """One phase of the search, for all starts or for those that have not converged."""
    _, groups, parts, starts = start.shape
    rows = measured.shape[-1] * parts
    # Powers of two, so that other numbers of groups share compiled programs.
    many = groups if form.shared else min(1 << (groups - 1).bit_length(), 1 << max(CHUNK // rows, 1).bit_length() - 1)
    length = min(starts, max(1, CHUNK // (rows * many)))
    for most in ROUNDS[phase]:
        if found is None:
            delta = np.full((1, 1, 1), np.inf)
            found = _in_chunks(phase, form, data, measured, weight, start, delta, most, many, length)
            continue
        left = ~found.converged & np.isfinite(found.value)
        count = int(left.sum(-1).max())
        if not count:
            break
        index = np.argsort(~left, axis=-1, kind="stable")[..., :count]
        of_all = np.broadcast_to(index, (*start.shape[1:3], count))
        more = _in_chunks(
            phase,
            form,
            data,
            measured,
            np.take_along_axis(weight, of_all[..., None], 2) if weight.shape[2] > 1 else weight,
            np.take_along_axis(found.x, of_all[None], -1),
            np.take_along_axis(found.delta, index, -1),
            most,
            many,
            length,
        )
        np.put_along_axis(found.x, of_all[None], more.x, -1)
        steps = np.take_along_axis(found.steps, index, -1) + more.steps
        for name, new in more._replace(steps=steps)._asdict().items():
            if name != "x":
                np.put_along_axis(getattr(found, name), index, new, -1)
    assert found is not None
    return found


def _in_chunks(
    phase: str,
    form: Form,
    data: Any,
    measured: np.ndarray,
    weight: np.ndarray,
    start: np.ndarray,
    delta: np.ndarray,
    most: int,
    many: int,
    length: int,
) -> Found:
    """One phase of the search, by chunks of `many` groups and `length` starts, each of which is one compiled call."""
    _, groups, _, starts = start.shape
    pieces = [(g, b) for g in range(0, groups, many) for b in range(0, starts, length)]

    def cut(array: np.ndarray, axis: int, begin: int, size: int) -> np.ndarray:
        """A slice, with the last element again and again beyond the end."""
        kept: np.ndarray = np.take(array, np.minimum(np.arange(begin, begin + size), array.shape[axis] - 1), axis)
        return kept

    def solved(piece: tuple[int, int]) -> Found:
        g, b = piece
        with setting(np.dtype(np.float64)):  # which is one of each thread
            found = _compiled(
                phase,
                form,
                jax.tree.map(lambda x: cut(x, 0, g, many), data),
                cut(measured, 0, g, many),
                cut(cut(weight, 0, g, many), 2, b, length if weight.shape[2] > 1 else 1),
                cut(cut(start, 1, g, many), 3, b, length),
                most,
                cut(cut(delta, 0, g, len(delta) if form.shared else many), 2, b, length),
            )
            return Found(*map(np.asarray, found))

    found = [solved(pieces[0])]  # compiled by one thread, and not by each
    if len(pieces) > 1:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found += pool.map(solved, pieces[1:])
    columns = range(0, starts, length)
    grid = [[found[i * len(columns) + j] for j in range(len(columns))] for i in range(len(found) // len(columns))]

    def joined(name: str) -> np.ndarray:
        parts = [[getattr(each, name) for each in row] for row in grid]
        whole = np.concatenate([np.concatenate(row, -1) for row in parts], -3)
        kept: np.ndarray = whole[..., : 1 if whole.shape[-3] < many else groups, :, :starts]
        return kept

    return Found(*map(joined, Found._fields))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(
    phase: str, form: Form, data: Any, measured: Any, weight: Any, start: Any, most: Any, delta: Any
) -> Found:
    with keep_powers():  # which serve predictions and derivatives
        if phase == "search":
            return search(form, data, measured, weight, start, most)
        return refine(form, data, measured, weight, start, most, delta)
