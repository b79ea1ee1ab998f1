"""How well runs tell the coefficients that were fitted to them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxlaws.arguments import setting
from jaxlaws.fitting.form import Form
from jaxlaws.fitting.objectives import OBJECTIVES
from jaxlaws.programs import QUICK, Program

__all__ = ["Spread", "statistics"]

LEAST_LEFT = 0.1  # of the influence of a run that draws the law to itself
RANK = 1e-10  # of the largest singular value of scaled derivatives; what is below it tells nothing from rounding


@dataclasses.dataclass
class Spread:
    """Errors of coefficients, and what is known of them."""

    stderr: np.ndarray  # [number, group, part]
    covariance: np.ndarray  # [group, all numbers, all numbers]
    untold: list[list[np.ndarray]]  # for each group, [direction, all numbers]
    rank: np.ndarray  # [group, part]
    condition: np.ndarray  # [group, part]
    vague: np.ndarray  # [number, group, part], whether the runs do not tell it
    bound: np.ndarray  # [number, group, part]
    free: np.ndarray  # [group, part], runs that are left when every coefficient has one
    value: np.ndarray = dataclasses.field(init=False)  # [group, part], the objective, infinite where it is not known


class _Analysis(NamedTuple):
    """The same for one set of coefficients, or for a stack of sets."""

    covariance: np.ndarray  # [..., number, number]
    stderr: np.ndarray  # [..., number]
    vague: np.ndarray  # [..., number]
    condition: np.ndarray
    free: np.ndarray
    blind: np.ndarray  # [..., number, number], the projection on what the runs do not tell, of scaled numbers
    scale: np.ndarray  # [..., number]


@np.errstate(all="ignore")  # errors of coefficients that the runs do not identify may be beyond all numbers
def statistics(
    form: Form,
    x: np.ndarray,
    predicted: np.ndarray,
    derivatives: np.ndarray,
    measured: np.ndarray,
    weight: np.ndarray,
) -> Spread:
    """Covariances from the derivatives of the errors at the optimum.

    Args:
        form: What was fitted.
        x: The optimum, [number, group, part].
        predicted: Predictions there, [group, part, row].
        derivatives: Their derivatives, [number, group, part, row].
        measured: [group, part, row].
        weight: [group, part, row].
    """
    used = weight > 0
    predicted = np.where(used, predicted, measured)  # what is predicted of the others may be anything
    with setting(np.dtype(np.float64)):
        error, slope = map(np.asarray, _errors(form.objective, predicted, measured))
    low, high = (np.asarray(b)[:, None, None] for b in (form.lower, form.upper))
    jacobian = np.where(used, np.nan_to_num(derivatives * slope) * np.sqrt(weight), 0)
    bound = ((x <= low) | (x >= high)) & _pressed(form, jacobian, error * np.sqrt(weight))
    jacobian = np.where(bound[..., None], 0, jacobian)
    value = (weight * OBJECTIVES[form.objective].of_errors(error)).sum(-1)
    lost = ~np.isfinite(error).all(-1)  # where no start led anywhere
    error = np.where(lost[..., None], 0, error)
    if form.shared:
        found = _joint(form, jacobian[:, :, 0], error[:, 0], weight[:, 0], bound)
        lost[:] = lost.any()
    else:
        found = _separate(form, jacobian, error, weight, bound)
    value = np.where(np.isfinite(value), value, np.inf)
    found.value = np.broadcast_to(value.sum(0), value.shape) if form.shared else value
    found.stderr[:, lost] = np.nan
    found.covariance[lost.any(1)] = np.nan
    return found


def _pressed(form: Form, jacobian: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Which coefficients would go beyond a bound that they are on, [number, group, part].

    Others came there because the runs do not identify them: the objective does not change with them.
    """
    delta = OBJECTIVES[form.objective].delta
    error = np.nan_to_num(np.clip(error, -delta, delta))
    slope = (jacobian * error).sum(-1)
    size = np.sqrt((jacobian**2).sum(-1) * (error**2).sum(-1))
    shared = form.shared_count
    slope[:shared], size[:shared] = slope[:shared].sum(1, keepdims=True), size[:shared].sum(1, keepdims=True)
    pressed: np.ndarray = ~(np.abs(slope) <= 1e-6 * size) | (size == 0)
    return pressed


def _errors_and_slopes(objective: str, predicted: Any, measured: Any) -> tuple[Any, Any]:
    """Errors, and their derivatives by the predictions."""
    functions = OBJECTIVES[objective]
    return functions.error(predicted, measured), functions.slope(predicted, measured)


_errors = Program(_errors_and_slopes, static=1, cpu_options=QUICK)


def _separate(form: Form, jacobian: np.ndarray, error: np.ndarray, weight: np.ndarray, bound: np.ndarray) -> Spread:
    """For groups and parts that have no coefficients in common."""
    groups, parts = error.shape[:2]
    count, size = form.count, form.count * form.parts
    bounds = np.moveaxis(bound, 0, -1)
    found = _analysed(form, np.moveaxis(jacobian, 0, -1), error, weight, bounds)
    covariance = np.zeros((groups, size, size))
    for q in range(parts):
        place = slice(q * count, (q + 1) * count)
        covariance[:, place, place] = found.covariance[:, q]
    rank = count - bounds.sum(-1)
    untold: list[list[np.ndarray]] = [[np.zeros((0, size))] for _ in range(groups)]
    for g, q in np.argwhere(found.vague.any(-1)):
        directions = _untold(found.blind[g, q], found.scale[g, q], bounds[g, q])
        rank[g, q] -= len(directions)
        untold[g].append(np.pad(directions, ((0, 0), (q * count, size - (q + 1) * count))))
    stderr, vague = (np.moveaxis(values, -1, 0) for values in (found.stderr, found.vague))
    return Spread(stderr, covariance, untold, rank, found.condition, vague, bound, found.free)


def _joint(form: Form, jacobian: np.ndarray, error: np.ndarray, weight: np.ndarray, bound: np.ndarray) -> Spread:
    """For groups that share coefficients, of which there is one part."""
    count, shared = form.count, form.shared_count
    groups, own = len(error), form.count - form.shared_count
    matrix = np.zeros((groups, jacobian.shape[-1], shared + groups * own))
    places = [np.r_[:shared, shared + g * own : shared + (g + 1) * own] for g in range(groups)]
    for g, place in enumerate(places):
        matrix[g][:, place] = jacobian[:, g].T
    there = weight > 0
    bounds = np.concatenate([bound[:shared, 0, 0], *(bound[shared:, g, 0] for g in range(groups))])
    absent = int((~bound[shared:, ~there.any(-1), 0]).sum())
    found = _analysed(form, matrix[there], error[there], weight[there], bounds, absent)
    stderr, vague = np.zeros(bound.shape), np.zeros(bound.shape, bool)
    rank = np.zeros((groups, 1))
    untold = []
    directions = _untold(found.blind, found.scale, bounds)
    for g, place in enumerate(places):
        stderr[:, g, 0], vague[:, g, 0] = found.stderr[place], found.vague[place]
        mine = directions[:, place]
        untold.append([mine])
        sizes = np.abs(mine).max(axis=0, initial=0)
        lost = np.linalg.matrix_rank(mine / np.where(sizes > 0, sizes, 1)) if len(mine) else 0
        rank[g] = count - bound[:, g].sum() - lost
    covariance = np.stack([found.covariance[np.ix_(place, place)] for place in places])
    condition, free = (np.full((groups, 1), value) for value in (found.condition, found.free))
    return Spread(stderr, covariance, untold, rank, condition, vague, bound, free)


def _analysed(
    form: Form, matrix: np.ndarray, error: np.ndarray, weight: np.ndarray, bound: np.ndarray, absent: int = 0
) -> _Analysis:
    """From derivatives [..., row, number], which are 0 in rows of weight 0.

    Of the numbers that are not on a bound, `absent` belong to groups without runs, and take nothing from others.
    """
    delta = OBJECTIVES[form.objective].delta
    count = matrix.shape[-1]
    scale = np.linalg.norm(matrix, axis=-2)
    scale = np.where(scale > 0, scale, np.inf)
    scaled = matrix / scale[..., None, :]
    turned, singular, axes = np.linalg.svd(scaled, full_matrices=False)
    top = singular.max(-1, initial=0)
    told = singular > RANK * top[..., None]
    blind = np.eye(count) - _transposed(axes) @ (told[..., None] * axes)
    roots = np.where(told, 1 / np.where(told, singular, 1), 0)[..., None] * axes  # of the inverse of the squares
    loose = (~bound).sum(-1)
    free = (weight > 0).sum(-1) - loose + absent
    left = np.where(free > 0, free, np.nan)[..., None, None]
    if delta == np.inf:
        inverse = _transposed(roots) @ roots / scale[..., None, :] / scale[..., :, None]
        covariance = inverse * (weight * error**2).sum(-1)[..., None, None] / left
    else:
        force, steepness = _scores(error, weight, delta, loose)
        turned = turned * told[..., None, :]
        steep, turns = np.linalg.eigh(_transposed(turned) * steepness[..., None, :] @ turned)
        kept = steep > RANK * steep.max(-1, keepdims=True, initial=0)
        roots = _transposed(turns) @ roots
        # Directions in which no run is near enough to the law to say how steep the objective is are not told, either.
        flat = roots * ~kept[..., None]
        blind = blind + np.linalg.pinv(flat) @ flat
        roots = np.where(kept, 1 / np.sqrt(np.where(kept, steep, 1)), 0)[..., None] * roots
        inverse = _transposed(roots) @ roots / scale[..., None, :] / scale[..., :, None]
        # Runs with much influence draw the law to them, and leave residuals that are too small: they are scaled as if
        # each run had been left out of the fit (HC3 of MacKinnon and White 1985).
        squares = weight * force**2 / np.maximum(1 - np.sum(turned**2, -1), LEAST_LEFT) ** 2
        covariance = inverse @ (_transposed(matrix) * squares[..., None, :]) @ matrix @ inverse
        covariance = np.where(np.isnan(left), np.nan, covariance)
    # A coefficient that takes part in a direction in which the errors do not change is not known.
    vague = ~bound & (np.sqrt(np.abs(np.diagonal(blind, axis1=-2, axis2=-1))) > 1e-4)
    deviation = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    stderr = np.where(bound, np.nan, np.where(vague, np.inf, deviation))
    ranked = np.concatenate([singular, np.zeros((*singular.shape[:-1], count))], -1)  # also where there are few rows
    least = np.where(loose > 0, np.take_along_axis(ranked, np.maximum(loose - 1, 0)[..., None], -1)[..., 0], top)
    condition = np.divide(top, least, out=np.full(np.shape(top), np.inf), where=least > 0)
    return _Analysis(covariance, stderr, vague, condition, free, blind, scale)


def _transposed(matrix: np.ndarray) -> np.ndarray:
    return np.swapaxes(matrix, -1, -2)


def _untold(blind: np.ndarray, scale: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Directions in which the errors do not change, [direction, number], from the projection on them, scaled."""
    free = np.flatnonzero(~bound)
    size, axes = np.linalg.eigh(blind[np.ix_(free, free)])
    axes = np.where(np.abs(axes) > 1e-6, axes, 0).T[size > 0.5]  # without what rounding leaves
    found = np.zeros((len(axes), len(bound)))
    found[:, free] = axes / np.where(np.isfinite(scale), scale, 1)[free]
    return found


def _scores(error: np.ndarray, weight: np.ndarray, delta: float, loose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For stacks of rows, as `_score`; 0 for rows of weight 0."""
    force, steepness = np.zeros_like(error), np.zeros_like(error)
    for place in np.ndindex(error.shape[:-1]):
        there = weight[place] > 0
        force[place][there], steepness[place][there] = _score(error[place][there], delta, int(loose[place]))
    return force, steepness


def _score(error: np.ndarray, delta: float, loose: int) -> tuple[np.ndarray, np.ndarray]:
    """The derivative of the objective by the errors, and its own derivative, smoothed where it jumps.

    Huber's function bends for few errors only. How many of them there would be on average is told from a wider window
    (Powell 1991), of Silverman's width, and wide enough for more of them than there are coefficients.
    """
    force = np.clip(error, -delta, delta)
    if delta == np.inf or len(error) < 2:
        return force, np.ones_like(error)
    low, high = np.percentile(error, [25, 75])
    silverman = 1.06 * min(error.std(), (high - low) / 1.349) * len(error) ** -0.2
    enough = np.sort(np.abs(error))[min(loose, len(error) - 1)]
    width = max(silverman, enough, 1e-6 * delta)
    return force, (np.clip(error + width, -delta, delta) - np.clip(error - width, -delta, delta)) / (2 * width)
