"""Every law against its formula in the longest numbers of NumPy, over twelve decades of its inputs."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from sampling import columns

import jaxlaws as jl
from jaxlaws.columns import from_columns
from jaxlaws.law import variables
from jaxlaws.testing import groups_of, predict

ROWS = 300
BOUNDS = {np.float64: 1e-14, np.float32: 2e-6}
# Terms cancel, or an exponent is itself a power: what is lost there, no elementary function can give back.
WIDER = {"farseer": 5, "vocabulary": 3}
# Powers of numbers such as 1e24, of which float32 rounds the logarithm: (2 + 1.2*abs(y log x)) ulp.
LARGE_POWERS = {"deepseek", "distillation", "quantization", "step_law"}

pytestmark = pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="NumPy has no longer numbers here")


def exact(law, coefs, inputs, row):
    """The formula for one row."""
    values = {v.name: np.asarray(getattr(coefs, v.name), np.longdouble) for v in variables(law.coefs)}
    for v in variables(law.inputs):
        value = np.asarray(getattr(inputs, v.name), np.longdouble)[row]
        values[v.name] = value if v.floor is None else np.maximum(value, np.longdouble(v.floor))
    functions = {name: getattr(np, name) for name in ("log", "exp", "expm1", "sqrt", "sum", "maximum", "minimum")}
    return np.asarray(eval(law.formula, functions | values))


@pytest.mark.parametrize("dtype", BOUNDS, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("law", jl.laws.values(), ids=lambda law: law.name)
@np.errstate(divide="ignore", over="ignore", under="ignore")
def test_predictions_are_those_of_the_formula(law, dtype):
    x = from_columns(law, list(columns(law, ROWS, decades=4, dtype=dtype).values()))
    bound = BOUNDS[dtype] * WIDER.get(law.name, 1)
    bound *= 4 if law.name in LARGE_POWERS and dtype == np.float32 else 1
    for coefs in list(groups_of(law).values())[:2]:
        rounded = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), coefs)
        found = np.asarray(predict(law, rounded, x))
        assert found.dtype == dtype
        expected = np.array([exact(law, rounded, x, row) for row in range(ROWS)])
        normal = (np.abs(expected) < np.finfo(dtype).max / 2) & (np.abs(expected) > 1e-30)
        assert normal.sum() > 20
        found, expected = found[normal], expected[normal]
        usual = np.median(np.abs(expected)) if expected.min() < 0 < expected.max() else 0  # where it goes through 0
        assert np.max(np.abs(found - expected) / np.maximum(np.abs(expected), usual)) <= bound
