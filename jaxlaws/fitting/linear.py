"""The coefficients that a law is linear in, from measured runs, with the others held fixed."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxlaws.fitting.estimation import fixed_values, linearised, problem, records
from jaxlaws.fitting.form import form_of, linear_fields
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
    fixed = fixed_values(runs, {v.name: getattr(coefs, v.name) for v in variables(law.coefs) if v.name not in linear})
    form = form_of(
        law,
        jax.tree.map(lambda x: x[:4], runs.inputs),
        several=False,
        shared=(),
        fixed=fixed,
        bounds=dict.fromkeys(linear, (-np.inf, np.inf)),
        objective="squared",
    )
    data, measured, weight = problem(runs, form, fixed)
    x = np.zeros((form.count, 1, form.parts))
    constant, slopes = linearised(form, data, x)
    for part in range(form.parts):
        there = weight[0, part, 0] > 0
        rest = (measured[0, part, 0] - constant[0, part])[there]
        x[:, 0, part] = np.linalg.lstsq(slopes[:, 0, part, there].T, rest, rcond=None)[0]
    return records(form, x, fixed)[0]
