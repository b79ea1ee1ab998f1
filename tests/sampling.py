"""Random configurations of any law."""

from __future__ import annotations

import numpy as np

import jaxlaws as jl
from jaxlaws.columns import from_columns
from jaxlaws.law import variables

# The laws whose source is code that a program wrote for a task of SLDBench.
PUBLISHED = [name for name, law in jl.laws.items() if law.source.task]


def columns(law, count, seed=0, decades=0.0, dtype=np.float64):
    """Input columns in the fitted range, widened by some decades on each side."""
    random = np.random.default_rng(seed)
    found = {}
    for v in variables(law.inputs):
        names = v.column_names(law.sizes)
        if v.total is not None:
            values = random.dirichlet(np.ones(len(names)), count)
            values = values * 10.0 ** random.uniform(-decades, 0, values.shape) if decades else values
        else:
            low, high = np.log10(np.asarray(v.range, np.float64))
            values = 10.0 ** random.uniform(low - decades, high + decades, (count, len(names)))
        found.update(zip(names, values.T.astype(dtype), strict=True))
    return found


def inputs(law, count, **options):
    """The same as a record."""
    return from_columns(law, list(columns(law, count, **options).values()))


def formula(law, coefs, record, row):
    """The formula of a law for one row, evaluated by NumPy alone."""
    values = {v.name: np.asarray(getattr(coefs, v.name), np.float64) for v in variables(law.coefs)}
    for v in variables(law.inputs):
        value = np.asarray(getattr(record, v.name), np.float64)[row]
        values[v.name] = value if v.floor is None else np.maximum(value, v.floor)
    functions = {name: getattr(np, name) for name in ("log", "exp", "sqrt", "sum", "maximum", "minimum")}
    return eval(law.formula, {"__builtins__": {}}, functions | values)
