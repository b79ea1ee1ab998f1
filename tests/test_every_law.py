"""Every law x every property."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from sampling import PUBLISHED, inputs

import jaxlaws as jl
from jaxlaws import testing
from jaxlaws.columns import from_columns
from jaxlaws.evaluation import tabulate

# Those that look at the last bits of predictions.
EXACT = (
    testing.agrees_with_its_formula,
    testing.agrees_with_its_golden_values,
    testing.is_exact_in_float32,
    testing.jit_is_no_jit,
    testing.nan_gives_nan,
)


# All checks of a law, and then the next one: they share what is compiled and computed for it.
@pytest.mark.parametrize("check", testing.checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize("law", jl.laws.values(), ids=lambda law: law.name)
def test_law(law, check, request):
    if check not in EXACT:
        request.getfixturevalue("quick")
    check(law)


def test_floors_and_nan():
    """More than `check_law` asks for: data_constrained alone keeps what is small, and takes NaN as a floor."""
    for law in jl.laws.values():
        if law.name == "data_constrained":
            continue
        coefs = next(iter(testing.groups_of(law).values()))
        one = inputs(law, 1)
        for v in jl.variables(law.inputs):
            bad = np.asarray(law(coefs, with_rows(one, v, np.nan)))
            assert np.isnan(bad).any(), (law.name, v.name)
            assert np.isnan(bad).all() or law.output_shape == ("output",), (law.name, v.name)
            if v.floor is not None and v.name != "tokens":
                half, least = np.asarray(law(coefs, with_rows(one, v, v.floor / 2, 0.0)))
                assert half == least, (law.name, v.name)


def with_rows(one, v, *values):
    """A row again and again, with these values of an input."""
    rows = jax.tree.map(lambda leaf: np.repeat(leaf, len(values), axis=0), one)
    changed = np.broadcast_to(np.reshape(values, (-1, *[1] * len(v.shape))), np.shape(getattr(rows, v.name)))
    return dataclasses.replace(rows, **{v.name: changed})


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
        (found,) = tabulate(law, ("value",), group, x, len(usable))  # which takes proportions as they are
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5)
