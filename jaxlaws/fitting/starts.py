"""Many starts for many groups, on all cores."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlaws.arguments import setting
from jaxlaws.fitting.form import Form
from jaxlaws.fitting.levenberg_marquardt import Found, search
from jaxlaws.fitting.newton import refine
from jaxlaws.fitting.normal_equations import FEW_ROWS
from jaxlaws.fitting.objectives import is_robust
from jaxlaws.numerics import keep_powers
from jaxlaws.programs import ONE_LOOP, QUICK, Program, roomy

__all__ = ["by_rows", "rounding", "solve_all", "spread"]

CHUNK = 1 << 13  # rows times problems that are solved together: few wait for the one that takes longest
SMALL_CHUNK = 1 << 9  # the same where steps differ in their numbers of turns, too, and problems are few
MANY, FEW = 128, 32  # so many problems of that kind are solved by so few
DAMPING = 1e-3  # of the first step
EXACT = 1e-13  # relative errors that rounding leaves
HALVES = 16  # starts of robust objectives that see half of the runs
BEST = 4  # of them, from which the search goes on
DISTINCT = 8  # minima of the first search, at most, from which the second one goes on


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
    """Where the search ends from every start, for all groups, in NumPy; results are [..., group, part, start].

    Args:
        form: What is fitted.
        data: Inputs, [group, row, ...], and values of the fixed fields, [group, ...].
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
            places = np.concatenate([again.ravel(), np.arange(len(first), found.value.shape[-1])])
            return Found(*(values[..., places] for values in found))
    run = functools.partial(_in_rounds, form, data, measured)
    robust, given = is_robust(form.objective), start.shape[-1]
    if warm and robust:
        return run(weight, "refine", start)
    halved = robust and weight.shape[2] == 1 and not all(form.linear)
    if halved:
        # Squares may end where one run that is far off is met at the cost of all others: some starts see half of them.
        halves = _halves(weight, form.count, min(HALVES, given))
        some = np.concatenate([np.broadcast_to(weight, (*weight.shape[:2], given, weight.shape[3])), halves], 2)
        found = run(some, "search", np.concatenate([start, start[..., : halves.shape[2]]], -1))
        best = np.argsort(np.where(np.isnan(found.value), np.inf, found.value)[..., given:], -1)[..., :BEST]
        best = np.broadcast_to(best, (*start.shape[1:3], best.shape[-1]))
        partial = np.take_along_axis(found.x[..., given:], best[None], -1)
        found = Found(*(values[..., :given] for values in found))
    else:
        found = run(weight, "search", start)
    least = np.argmin(np.where(np.isnan(found.value), np.inf, found.value), -1)[..., None]
    if not robust and np.take_along_axis(found.converged, least, -1).all():
        return found
    if weight.shape[2] > 1:  # every start is a problem of its own
        return run(weight, "refine", found.x) if robust else run(weight, "refine", found.x, found)
    # Starts that have met go on as one.
    chosen, owner = _distinct(found.value, rounding(form, measured, weight))
    index = np.broadcast_to(chosen[None], (len(start), *start.shape[1:3], chosen.shape[-1]))
    begin = np.take_along_axis(found.x, index, -1)
    refined = run(weight, "refine", np.concatenate([begin, partial], -1) if halved else begin)

    def of_start(values: np.ndarray, others: Any) -> np.ndarray:
        each = np.broadcast_to(np.maximum(owner, 0), (*values.shape[:-1], owner.shape[-1]))
        found: np.ndarray = np.where(owner >= 0, np.take_along_axis(values, each, -1), others)
        return found

    # Where there are too many minima, the worst of them are not gone on from.
    whole = Found(
        x=of_start(refined.x, found.x),
        value=of_start(refined.value, np.inf if robust else found.value),
        converged=of_start(refined.converged, False),
        steps=found.steps + of_start(refined.steps, 0),
        damping=of_start(refined.damping, found.damping),
    )
    others = Found(*(values[..., chosen.shape[-1] :] for values in refined))
    return Found(*(np.concatenate(values, -1) for values in zip(whole, others, strict=True)))


def _halves(weight: np.ndarray, count: int, starts: int) -> np.ndarray:
    """Weights, [group, part, start, row], of which each start has those of a random half of the runs.

    There are more runs than coefficients in it, where there are so many.
    """
    random = np.random.default_rng(0)
    rank = (
        np.where(weight > 0, random.random((*weight.shape[:2], starts, weight.shape[3])), np.inf)
        .argsort(-1)
        .argsort(-1)
    )
    kept = np.maximum((weight > 0).sum(-1, keepdims=True) // 2, count + 1)
    found: np.ndarray = np.where(rank < kept, weight, 0)
    return found


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
        finite = np.isfinite(ranked)  # the first ones
        new = finite & ~(np.diff(np.where(finite, ranked, 0), prepend=-np.inf) <= 1e-6 * np.abs(ranked))
        rank = np.cumsum(new) - 1
        first = order[new][: chosen.shape[1]]
        chosen[row] = np.resize(first, chosen.shape[1]) if len(first) else 0
        owner[row, order] = np.where(finite & (rank < chosen.shape[1]), rank, -1)
    return chosen.reshape(*value.shape[:-1], -1), owner.reshape(value.shape)


# Steps; after each number of them, the problems that are still on their way go on, in fewer chunks where they can.
ROUNDS = (12, 12, 24, 24, 64, 256)
ROUGH = ROUNDS[:3]  # where another search goes on from there


class _Problems(NamedTuple):
    """Problems, as `search` takes them; those of one set have the same runs."""

    data: Any  # [..., set]
    measured: np.ndarray  # [row, block, set]
    weight: np.ndarray  # [set or problem, row, block]
    set_of: np.ndarray

    def take(self, chosen: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
        """Data, measurements and weights, [row, block, problem], or of one that stands for all."""
        (inputs, fixed), measured, weight = self.data, self.measured, self.weight
        sets = self.set_of[chosen]
        if measured.shape[2] > 1:
            inputs = jax.tree.map(lambda x: np.take(x, sets, 2), inputs)
            fixed = jax.tree.map(lambda x: np.take(x, sets, 1), fixed)
            measured = np.take(measured, sets, 2)
        if len(weight) > 1:
            weight = weight[chosen if len(weight) == len(self.set_of) else sets]
        return (inputs, fixed), measured, np.moveaxis(weight, 0, 2)


def by_rows(form: Form, data: Any) -> Any:
    """Inputs and fixed coefficients, [group, ...], in the order of axes that `form.at` takes."""
    inputs, fixed = data
    if form.shared:  # groups are blocks
        return (
            jax.tree.map(lambda x: np.swapaxes(x, 0, 1)[:, :, None], inputs),
            jax.tree.map(lambda x: x[:, None], fixed),
        )
    return jax.tree.map(lambda x: np.swapaxes(x, 0, 1)[:, None], inputs), jax.tree.map(lambda x: x[None], fixed)


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
    groups, starts = start.shape[1], start.shape[3]

    def flat(values: np.ndarray) -> np.ndarray:
        """[..., group, part, start] as [..., block, problem]."""
        if form.shared:  # of which there is one part
            return values[..., 0, :]
        turned = np.moveaxis(values, -3, -2)
        return turned.reshape(*turned.shape[:-2], -1)

    def whole(values: np.ndarray) -> np.ndarray:
        if form.shared:
            return values[..., None, :]
        return np.moveaxis(values.reshape(*values.shape[:-1], groups, starts), -3, -2)

    problems = _Problems(
        data=by_rows(form, data),
        measured=flat(np.moveaxis(measured, -1, 0)),
        weight=np.moveaxis(flat(np.moveaxis(weight, -1, 0)), -1, 0),
        set_of=np.zeros(starts, int) if form.shared else np.repeat(np.arange(groups), starts),
    )
    x = flat(start)
    blocks, total = x.shape[1:]
    one = 1 if form.shared else blocks
    rows = measured.shape[-1] * blocks
    room = max(1, CHUNK // rows)
    if phase == "refine" and is_robust(form.objective):
        room = min(room, FEW) if total >= MANY else max(1, SMALL_CHUNK // rows)
    length = min(room, roomy(total))
    if found is None:
        state = Found(
            x=x.copy(),
            value=np.full((one, total), np.inf),
            converged=np.zeros((one, total), bool),
            steps=np.zeros((one, total), np.int32),
            damping=np.full((one, total), DAMPING),
        )
        left = np.arange(total)
    else:
        state = Found(x.copy(), *(np.array(flat(values)) for values in found[1:]))
        left = np.flatnonzero(_unfinished(state))
    rounds = ROUGH if phase == "search" and is_robust(form.objective) else ROUNDS
    for turn, most in enumerate(rounds):
        if not len(left):
            break
        before = state.value.copy()
        more = _in_chunks(phase, form, problems, state.x, state.damping, left, most, length)
        more = more._replace(steps=state.steps[:, left] + more.steps)
        done = state.converged[:, left]  # blocks that wait for others of their problem
        for kept, new in zip(state, more, strict=True):
            kept[..., left] = np.where(done, kept[..., left], new)
        unfinished = _unfinished(state)
        if weight.shape[2] == 1:  # starts that will not get to the best one at their pace are given up
            best = np.where(state.converged, state.value, np.inf).reshape(one, -1, starts).min(-1)
            with np.errstate(invalid="ignore"):  # infinity less infinity
                reach = (before - state.value) * (sum(rounds[turn + 1 :]) / most)
                lost = state.value - np.repeat(best, starts, -1) > reach
            unfinished &= ~lost.all(0)
        left = left[unfinished[left]]
    return Found(*map(whole, state))


def _unfinished(found: Found) -> np.ndarray:
    """Which problems further steps may help."""
    unfinished: np.ndarray = (~found.converged & np.isfinite(found.value)).any(0)
    return unfinished


def _in_chunks(
    phase: str,
    form: Form,
    problems: _Problems,
    start: np.ndarray,
    damping: np.ndarray,
    chosen: np.ndarray,
    most: int,
    length: int,
) -> Found:
    """One phase of the search for some problems, by chunks of `length` of them, each of which is one compiled call."""

    def solved(begin: int) -> Found:
        piece = np.resize(chosen[begin : begin + length], length)
        with setting(np.dtype(np.float64)):  # which is one of each thread
            given = form.bounds, *problems.take(piece), start[..., piece], np.int32(most), damping[..., piece]
            found = _compiled(phase, form, *given)
            return Found(*map(np.asarray, found))

    begins = range(0, len(chosen), length)
    found = [solved(begins[0])]  # compiled by one thread, and not by each
    if len(begins) > 1:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found += pool.map(solved, begins[1:])
    return Found(*(np.concatenate(values, -1)[..., : len(chosen)] for values in zip(*found, strict=True)))


def _phase(
    phase: str, form: Form, bounds: Any, data: Any, measured: Any, weight: Any, start: Any, most: Any, damping: Any
) -> Found:
    """One phase of the search for problems whose axis is the last one."""
    solve = search if phase == "search" else refine
    with keep_powers():  # which serve predictions and derivatives
        return solve(form, bounds, data, measured, weight, start, most, damping)


_few_rows, _many_rows = (Program(_phase, static=2, cpu_options=options) for options in (QUICK | ONE_LOOP, QUICK))


def _compiled(*args: Any) -> Found:
    """The same, compiled."""
    measured = args[4]
    found: Found = (_few_rows if len(measured) <= FEW_ROWS else _many_rows)(*args)
    return found
