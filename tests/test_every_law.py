"""Every law x every property."""

from __future__ import annotations

import numpy as np
import pytest
from sampling import PUBLISHED, inputs

import jaxlaws as jl
from jaxlaws import testing
from jaxlaws.columns import from_columns


@pytest.mark.parametrize("law", jl.laws.values(), ids=lambda law: law.name)
@pytest.mark.parametrize("check", testing.checks(), ids=lambda check: check.__name__)
def test_law(law, check):
    check(law)


def test_floors_and_nan():
    """More than `check_law` asks for: data_constrained alone keeps what is small, and takes NaN as a floor."""
    for law in jl.laws.values():
        if law.name == "data_constrained":
            continue
        coefs = next(iter(testing.groups_of(law).values()))
        row = {v.name: values[0] for v, values in zip(jl.variables(law.inputs), _columns(law), strict=True)}
        for v in jl.variables(law.inputs):
            bad = law(coefs, row | {v.name: np.full(np.shape(row[v.name]), np.nan)})
            assert np.isnan(bad).any(), (law.name, v.name)
            assert np.isnan(bad).all() or law.output_shape == ("output",), (law.name, v.name)
            if v.floor is not None and v.name != "tokens":
                half, least = law(coefs, row | {v.name: np.array([v.floor / 2, 0.0])})
                assert half == least, (law.name, v.name)


def _columns(law):
    x = inputs(law, 1)
    return [np.asarray(getattr(x, v.name)) for v in jl.variables(law.inputs)]


@pytest.mark.parametrize("law", PUBLISHED, indirect=True)
def test_agrees_with_the_published_code(law, golden):
    rows, outputs = golden[law.name]["rows"], golden[law.name]["outputs"]
    assert set(outputs) == {*law.groups, "no such group"}
    predict = jl.sldbench.law(law.name)
    for group, expected in outputs.items():
        found = predict(rows, group)
        np.testing.assert_allclose([list(row.values()) for row in found], expected, rtol=1e-12)


@pytest.mark.parametrize("law", PUBLISHED, indirect=True)
def test_float32_is_within_1e_5_of_the_published_code_at_the_floors_too(law, golden):
    rows, outputs = golden[law.name]["rows"], golden[law.name]["outputs"]
    usable = [
        i
        for i, row in enumerate(rows)
        if all(np.isfinite(row.get(c) or np.nan) or row.get(c) == 0 for c in law.input_columns)
    ]
    assert len(usable) >= 6
    x = from_columns(law, [np.array([rows[i][c] for i in usable], np.float32) for c in law.input_columns])
    for group in law.groups:
        expected = np.array(outputs[group])[usable]
        np.testing.assert_allclose(np.asarray(law(group, x)).reshape(expected.shape), expected, rtol=1e-5)
