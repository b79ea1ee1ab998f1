"""The elementary functions against mpmath and NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jaxlaws import numerics

EXPONENTS = [-0.9108617183578192, -0.25125, -0.0146927813, 0.5, 1.7]


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-14), (np.float32, 1e-5)])
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_power_agrees_with_mpmath(dtype, bound, exponent):
    x = (10.0 ** np.random.default_rng(0).uniform(-12, 15, 300)).astype(dtype)
    exponent = dtype(exponent)
    with jax.enable_x64(True):
        found = np.asarray(numerics.power(x, exponent))
    assert found.dtype == dtype
    exact = [float(mpmath.mpf(float(v)) ** mpmath.mpf(float(exponent))) for v in x]
    np.testing.assert_allclose(found, exact, rtol=bound)


def test_power_at_the_ends():
    x = np.array([0.0, 1.0, np.inf, np.nan, -1.0], np.float32)
    for exponent in (-0.5, 0.5, 2.5):
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = x ** np.float32(exponent)
        np.testing.assert_array_equal(numerics.power(x, exponent), expected)


def test_at_least_is_the_maximum_with_the_derivative_from_above():
    x = np.array([-np.inf, -1.0, 0.5, 1.0, 2.0, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(numerics.at_least(x, 1.0), np.maximum(x, 1))
    slopes = jax.vmap(jax.grad(lambda v: numerics.at_least(v, 1.0)))(x)
    np.testing.assert_array_equal(slopes, [0, 0, 0, 1, 1, 1, 1])


def test_positive_or_takes_what_is_not_positive_as_the_other():
    x = np.array([-np.inf, -1.0, -0.0, 0.0, 1e-30, 2.0, np.inf, np.nan], np.float32)
    expected = np.array([7, 7, 7, 7, 1e-30, 2, np.inf, 7], np.float32)
    np.testing.assert_array_equal(numerics.positive_or(x, 7.0), expected)
    slopes = jax.vmap(jax.grad(lambda v: numerics.positive_or(v, 7.0)))(x)
    np.testing.assert_array_equal(slopes, [0, 0, 0, 0, 1, 1, 1, 0])


def test_matvec_is_the_sum_of_the_products():
    random = np.random.default_rng(0)
    a, b, v, w = (random.random(shape, np.float32) for shape in ((4, 3), (4, 3), 3, 3))
    found = numerics.matvec((jnp.asarray(a), jnp.asarray(v)), (jnp.asarray(b), jnp.asarray(w)))
    np.testing.assert_allclose(found, a @ v + b @ w, rtol=1e-6)
