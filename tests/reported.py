"""Whether a fit reports what it returns."""

from __future__ import annotations

import numpy as np

import jaxlaws as jl
from jaxlaws import testing

DELTA = 1e-3
FEW = 3  # runs and groups that are looked at


def of_errors(error, objective):
    """What errors add to the objective, from its definition."""
    size = np.abs(error)
    inner = np.minimum(size, DELTA if objective == "huber_log" else np.inf)
    return inner * (size - inner / 2)


def check(fit):
    """The objective, the residuals and the scores are those of the coefficients, by the text of the formula."""
    runs, law = fit.runs, fit.runs.law
    measured = runs.measured
    predicted = measured - np.reshape(fit.residuals, measured.shape)
    counted = runs.weights > 0
    is_text = law.name in jl.laws and law.fn is jl.laws[law.name].fn  # laws that a test changes keep the formula
    objectives, rounding = {}, 0
    for name in runs.groups[: None if fit.form.shared else FEW]:
        mine = np.flatnonzero(counted & (runs.group == runs.groups.index(name)))
        if not len(mine):
            continue
        for row in mine[:: -(-len(mine) // FEW)] if is_text else ():
            with np.errstate(all="ignore"):
                expected = np.ravel(testing.evaluated(law, fit.coefs[name], runs.inputs, row))
            np.testing.assert_allclose(predicted[row], expected, rtol=1e-8, atol=1e-10)
        with np.errstate(all="ignore"):
            error = {
                "squared": lambda f, y: f - y,
                "relative": lambda f, y: f / y - 1,
                "huber_log": lambda f, y: np.log(f / y),
            }[fit.objective](predicted[mine], measured[mine])
        each = runs.weights[mine, None] * of_errors(error, fit.objective)
        objectives[name] = each.sum()
        rounding += (
            1e-24 * (runs.weights[mine, None] * (measured[mine] if fit.objective == "squared" else 1) ** 2).sum()
        )
    for name, value in objectives.items():
        joint = sum(objectives.values()) if fit.form.shared else value
        np.testing.assert_allclose(fit.value[name], joint, rtol=1e-7, atol=rounding)
    left = (measured - predicted)[counted]
    with np.errstate(all="ignore"):
        r2 = (1 - (left**2).mean(0) / measured[counted].var(0)).mean()
    if np.isfinite(r2):
        np.testing.assert_allclose(fit.scores.r2, r2, rtol=1e-9, atol=1e-9)
