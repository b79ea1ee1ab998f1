"""Intervals of what a law predicts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlaws.arguments import by_name, check_law, normalised
from jaxlaws.evaluation import predict
from jaxlaws.fitting.bootstrap import Draws, published_draws
from jaxlaws.fitting.estimation import Fit, check_level, linearised, t_quantile
from jaxlaws.law import Law, UnknownNameError, variables

__all__ = ["Interval", "predict_interval"]


ROUNDING = 1e-6  # of what the parts of a change come to, below which they cancel


class Interval(NamedTuple):
    """Where a prediction lies: NumPy arrays of the shape of the prediction, in its unit.

    The interval of a fit is infinite where its runs do not tell the prediction, as far from the only value that they
    have of an input, and NaN where there are no more runs than coefficients.
    """

    low: np.ndarray
    middle: np.ndarray
    high: np.ndarray


def predict_interval(
    fit: Fit | Draws | Law, group: str, inputs: Any = None, /, *, level: float = 0.9, run: bool = False, **named: Any
) -> Interval:
    """Between which values the output of a fitted law lies, for any number of configurations.

    Args:
        fit: A fit, whose covariance matrix and derivatives give the interval; or draws, whose quantiles do; or a law,
            for a group whose errors were published (see [`published_draws`][jaxlaws.published_draws]).
        group: Name of a group of the fit.
        inputs: Record or dict of inputs.
        level: The probability that the interval is to have.
        run: Ask for the interval of a measured run, which has its own deviation from the law, in place of the one of
            the law. That takes a fit, or draws of one, and deviations that are alike in all runs; relative ones for
            relative objectives.
        **named: Or the inputs by name; they broadcast.

    Returns:
        Lower end, prediction (for draws their median) and upper end.

    Raises:
        UnknownNameError: The fit has no such group.

    Example:
        >>> import numpy as np, jaxlaws as jl
        >>> law = jl.laws["sft"]
        >>> size = np.geomspace(200, 4e5, 12)
        >>> noise = 1 + 0.01 * np.random.default_rng(0).normal(size=12)
        >>> fit = jl.fit(law, {"sft_data_size": size, "sft_loss": (1 + 5 * size**-0.3) * noise})
        >>> low, middle, high = jl.predict_interval(fit, "all_data", sft_data_size=1e6)
        >>> print(low.round(3), middle.round(3), high.round(3))
        1.059 1.072 1.085
        >>> chinchilla = jl.laws["chinchilla"]
        >>> interval = jl.predict_interval(chinchilla, "besiroglu2024", params=7e10, tokens=1.4e12)
        >>> print(interval.low.round(3), interval.middle.round(3), interval.high.round(3))
        1.955 1.975 1.998
    """
    if not isinstance(fit, (Fit, Draws)):
        check_law(fit)
        fit = published_draws(fit, group)
    tail = (1 + check_level(level)) / 2
    if group not in fit.coefs:
        raise UnknownNameError.of("group of the fit", group, fit.coefs)
    inputs, batch = _rows(fit.law, by_name(fit.law, inputs, named))
    if isinstance(fit, Draws):
        ends = _of_draws(fit, group, inputs, tail, run)
    else:
        ends = _of_fit(fit, group, inputs, tail, run)
    outputs = (len(fit.law.output_columns),) if fit.law.output_shape else ()
    return Interval(*(end.reshape((*batch, *outputs)) for end in ends))


def _rows(law: Law, given: dict[str, Any]) -> tuple[Any, tuple[int, ...]]:
    """Inputs as a record [row, ...], and the shape of the batch."""
    arrays = {v.name: np.asarray(given[v.name], np.float64) for v in variables(law.inputs)}
    cores = {v.name: arrays[v.name].shape[arrays[v.name].ndim - len(v.shape) :] for v in variables(law.inputs)}
    batch = np.broadcast_shapes(*[array.shape[: array.ndim - len(cores[name])] for name, array in arrays.items()])
    rows = {
        name: np.broadcast_to(array, (*batch, *cores[name])).reshape(-1, *cores[name]) for name, array in arrays.items()
    }
    return normalised(law, law.inputs(**rows)), batch


def _of_draws(draws: Draws, group: str, inputs: Any, tail: float, run: bool) -> list[np.ndarray]:
    """Quantiles over the draws, [row, output]."""
    law = draws.law
    coefs = law.coefs(**{v.name: np.expand_dims(getattr(draws.coefs[group], v.name), 1) for v in variables(law.coefs)})
    count = len(jax.tree.leaves(coefs)[0])
    found = np.asarray(predict(law, coefs, inputs)).reshape(count, -1, len(law.output_columns))
    if run:
        if draws.fit is None:
            raise ValueError("the interval of a run takes a fit, or draws of one; these draws are of an unknown fit")
        deviation, relative = _deviations(draws.fit, group)
        drawn = deviation[np.random.default_rng(0).integers(len(deviation), size=found.shape[:2])]
        found = found * (1 + drawn) if relative else found + drawn
    return list(np.quantile(found, [1 - tail, 0.5, tail], axis=0))


def _of_fit(fit: Fit, group: str, inputs: Any, tail: float, run: bool) -> list[np.ndarray]:
    """Prediction and multiples of its standard error, [row, output]."""
    form, place = fit.form, list(fit.coefs).index(group)
    rows = len(jax.tree.leaves(inputs)[0])
    padded = 1 << (max(rows, 1) - 1).bit_length()  # so that few sizes are compiled
    inputs = jax.tree.map(lambda x: np.resize(x, (1, padded, *x.shape[1:])), inputs)
    values = {v.name: np.asarray(getattr(fit.coefs[group], v.name))[None] for v in variables(fit.law.coefs)}
    numbers = form.numbers(values)  # [number, group, part]
    fixed = {name: value[place : place + 1] for name, value in fit.fixed.items()}
    predicted, slopes = linearised(form, (inputs, fixed), numbers)
    count = form.count
    matrix = fit.covariance[group]
    variance = np.empty(predicted[0].shape)
    for part, slope in enumerate(np.moveaxis(slopes[:, 0], 1, 0)):
        block = slice(part * count, (part + 1) * count)
        variance[part] = np.einsum("pn,pq,qn->n", slope, matrix[block, block], slope)
        untold = fit.untold[group][:, block]
        moved = np.abs(untold @ slope) > ROUNDING * (np.abs(untold) @ np.abs(slope))
        variance[part] = np.where(moved.any(axis=0), np.inf, variance[part])
    outputs = len(fit.law.output_columns)

    def per_row(values: np.ndarray) -> np.ndarray:
        return (values.T if form.parts > 1 else values.reshape(-1, outputs))[:rows]

    middle, variance = per_row(predicted[0]), per_row(variance)
    if run:
        deviation, relative = _deviations(fit, group)
        variance = variance + (deviation**2).mean(axis=0) * (middle**2 if relative else 1)
    half = t_quantile(tail, fit.freedom[group]) * np.sqrt(variance)
    return [middle - half, middle, middle + half]


def _deviations(fit: Fit, group: str) -> tuple[np.ndarray, bool]:
    """How far the runs of a group are from the law, [run, output], and whether relative to the prediction."""
    mine = (fit.runs.group == list(fit.coefs).index(group)) & (fit.runs.weights > 0)
    residuals = fit.residuals.reshape(len(fit.runs.group), -1)[mine]
    relative = fit.objective != "squared"
    if relative:
        residuals = residuals / (fit.runs.measured[mine] - residuals)
    freedom = max(fit.freedom[group], 1)
    return residuals * np.sqrt(max(len(residuals), 1) / min(freedom, len(residuals))), relative
