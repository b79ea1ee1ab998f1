"""The coefficients that a law is linear in, from measured runs, with the others held fixed."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxlaws.arguments import setting
from jaxlaws.fitting.estimation import FLOAT64, fit_runs, linearised, problem, records
from jaxlaws.fitting.form import linear_fields
from jaxlaws.fitting.runs import Runs
from jaxlaws.law import variables

__all__ = ["refit_linear"]


def refit_linear(runs: Runs, coefs: Any) -> Any:
    """The coefficients of one group, of which those that the law is linear in come from runs by least squares.

    Where runs leave several equally good, they are the smallest, as those of NumPy's and SciPy's `lstsq` are.

    Args:
        runs: Runs of one group.
        coefs: Coefficients, for those that the law is not linear in.
    """
    law = runs.law
    linear = linear_fields(law)
    fixed = {v.name: getattr(coefs, v.name) for v in variables(law.coefs) if v.name not in linear}
    bounds = dict.fromkeys(linear, (None, None))
    fit = fit_runs(runs, objective="squared", shared=(), fixed=fixed, bounds=bounds)
    (found,) = fit.coefs.values()
    x = fit.form.numbers({name: np.asarray(getattr(found, name))[None] for name in linear})  # [number, 1, part]
    data, _, _ = problem(runs, fit.form, fit.fixed)
    with setting(FLOAT64):
        slopes = np.asarray(linearised(fit.form, data, x)[1])
    for part in range(x.shape[2]):
        _, size, axes = np.linalg.svd(slopes[:, 0, part].T, full_matrices=False)
        told = axes[size > np.finfo(np.float64).eps * max(slopes.shape[0], slopes.shape[-1]) * size.max()]
        if len(told) < len(x):
            x[:, 0, part] = told.T @ (told @ x[:, 0, part])
    return records(fit.form, x, fit.fixed)[0]
