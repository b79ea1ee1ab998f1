"""Derivatives in float32 at sizes of today's models: 1e8 to 1e12 parameters and 1e9 to 1e14 tokens."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import columns

import jaxlaws as jl
from jaxlaws.columns import from_columns
from jaxlaws.numerics import plain, saturation
from jaxlaws.testing import groups_of

ROWS = 8
SIZES = {"parameters": (8, 12), "tokens": (9, 14), "characters": (9, 14)}
STEP = np.longdouble(5e-5)
TINY = float(np.finfo(np.float32).tiny)


def large(law):
    """Random configurations, of large sizes; what has no size is in its range."""
    names = {name: v for v, name in law.columns}
    random = np.random.default_rng(1)
    found = columns(law, ROWS, dtype=np.float32)
    for name, v in names.items():
        if v.unit in SIZES:
            found[name] = (10 ** random.uniform(*SIZES[v.unit], ROWS)).astype(np.float32)
    return from_columns(law, list(found.values()))


def formula(law, coefs, row):
    """The output as the text of the formula says, in the longest numbers of NumPy: the first of several, or a mean."""
    values = {v.name: np.asarray(getattr(coefs, v.name), np.longdouble) for v in jl.variables(law.coefs)}
    functions = {name: getattr(np, name) for name in ("log", "exp", "expm1", "sqrt", "sum", "maximum", "minimum")}
    outputs = eval(law.formula, functions | values | row)
    return outputs[0] if several(law) else np.mean(outputs)


def several(law):
    return law.output_shape == ("output",)


def in_logarithms(law, coefs, row):
    """x_i df/dx_i and x_i x_j d2f/dx_i dx_j by finite differences of the formula, for one configuration."""
    fields = jl.variables(law.inputs)
    row = {v.name: np.asarray(getattr(row, v.name), np.longdouble) for v in fields}
    places = [(name, index) for name, value in row.items() for index in np.ndindex(value.shape)]

    def moved(*steps):
        there = {name: value.copy() for name, value in row.items()}
        for (name, index), step in steps:
            there[name][index] *= np.exp(step)
        return formula(law, coefs, there)

    slope = np.array([(moved((p, STEP)) - moved((p, -STEP))) / (2 * STEP) for p in places])
    count = len(places)
    bend = np.empty((count, count), np.longdouble)
    for (i, p), (j, q) in itertools.product(enumerate(places), repeat=2):
        ends = [a * b * moved((p, a * STEP), (q, b * STEP)) for a in (1, -1) for b in (1, -1)]
        bend[i, j] = sum(ends) / (4 * STEP * STEP) - (slope[i] if i == j else 0)
    return slope, bend, abs(moved())


@pytest.mark.parametrize("law", jl.laws.values(), ids=lambda law: law.name)
def test_derivatives_in_float32_are_those_of_the_formula(law):
    """Second ones may be too small for it; inside a program of the caller."""
    coefs, x = next(iter(groups_of(law).values())), large(law)
    again = dataclasses.replace(law)  # JAX keeps what it traces of it
    options = {"weights": np.eye(len(law.output_columns), dtype=np.float32)[0]} if several(law) else {}
    with plain():
        verbs = (jl.gradient, jl.hessian)
        found = jax.jit(lambda x: [verb(again, coefs, x, **options) for verb in verbs])(x)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    slopes, bends = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)
    names = [v.name for v in jl.variables(law.inputs)]
    for i in range(ROWS):
        row = jax.tree.map(lambda leaf, i=i: leaf[i].astype(np.float64), x)
        numbers = [np.ravel(getattr(row, name)) for name in names]
        parts = [
            [
                np.reshape(getattr(getattr(bends, a), b)[i], (m.size, n.size))
                for b, n in zip(names, numbers, strict=True)
            ]
            for a, m in zip(names, numbers, strict=True)
        ]
        at = np.hstack(numbers)
        slope = at * np.hstack([np.ravel(getattr(slopes, name)[i]) for name in names])
        bend = np.block(parts) * at[:, None] * at
        by_slope, by_bend, value = in_logarithms(law, coefs, row)
        np.testing.assert_allclose(slope, by_slope, rtol=1e-3, atol=1e-5 * value)
        finite = np.isfinite(bend)
        too_small = np.abs(by_bend) < 1e-6 * value + 2 * TINY * at[:, None] * at
        assert (finite | too_small).all()
        np.testing.assert_allclose(bend[finite], by_bend[finite], rtol=1e-4, atol=1e-6 * value)


@pytest.mark.parametrize(
    "name", ["kaplan", "data_constrained", "data_constrained_overfit", "repeated_data", "parscale", "distillation"]
)
def test_second_derivatives_are_right_or_not_finite(name, quick):
    """However small they are: in float32 as in float64, but for those that it has no numbers for."""
    law = jl.laws[name]
    coefs, x = next(iter(law.groups.values())), large(law)
    found = jl.hessian(law, coefs, x)
    exact = jl.hessian(law, coefs, jax.tree.map(lambda leaf: leaf.astype(np.float64), x))
    for single, double in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        assert (single.dtype, double.dtype) == (np.float32, np.float64)
        single, lost = np.asarray(single, np.float64), np.abs(double) < TINY
        assert np.isnan(single[lost & (double != 0)]).all()
        assert not single[double == 0].any()
        np.testing.assert_allclose(single[~lost], double[~lost], rtol=1e-4)


def test_too_small_for_float32_is_nan_and_not_0():
    x = {"params": np.float32(1e10), "tokens": np.float32(1e18)}
    second = jl.hessian(jl.laws["chinchilla"], "besiroglu2024", x)
    assert np.isnan(second.tokens.tokens)
    assert second.params.params > 0
    assert second.params.tokens == second.tokens.params == 0, "of a sum of powers they are"


def test_second_derivatives_have_derivatives():
    """In reverse and forward, within programs of the caller and around them, as JAX may be set to 32 bits by then."""
    law, c = jl.laws["kaplan"], jl.laws["kaplan"].groups["table2"]
    again = dataclasses.replace(law)

    def second(tokens):
        with plain():
            return 1e26 * jl.hessian(again, c, params=jnp.full_like(tokens, 7e10), tokens=tokens).tokens.tokens

    tokens = jnp.float32(1.4e12)
    step = np.longdouble(1e-3)
    row = {"params": np.longdouble(np.float32(7e10))}
    ends = [formula(law, c, row | {"tokens": np.longdouble(tokens) * (1 + k * step)}) for k in (-2, -1, 1, 2)]
    third = np.dot([-1, 2, -2, 1], ends) / 2 * 1e26 / (step * np.longdouble(tokens)) ** 3
    for found in (
        jax.grad(second)(tokens),
        jax.grad(jax.jit(second))(tokens),
        jax.jit(jax.jacfwd(second))(tokens),
        jax.vmap(jax.grad(jax.jit(second)))(tokens[None])[0],
    ):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, float(third), rtol=1e-4)


def test_passes_beyond_all_bounds_do_not_overflow():
    law = jl.laws["data_constrained_overfit"]
    c = law.groups["all_data"]
    for dtype, tokens in ((np.float32, 1e30), (np.float64, 1e200)):
        row = {"params": 1e9, "tokens": tokens, "unique_tokens": 1e9}
        expected = formula(law, c, {name: np.longdouble(dtype(value)) for name, value in row.items()})
        found = law(c, {name: dtype(value) for name, value in row.items()})
        np.testing.assert_allclose(found, float(expected), rtol=1e-5)


def test_what_saturates_has_a_slope_to_the_last_digit():
    x = np.float32([0.5, 5, 12, 16, 40, 80])
    slopes = jax.vmap(jax.grad(saturation))(x)
    np.testing.assert_allclose(slopes, np.exp(-x.astype(np.float64)), rtol=1e-6)
    assert jax.grad(saturation)(1.0, 2.0) == 0
