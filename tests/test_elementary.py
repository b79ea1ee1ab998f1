"""The elementary functions: their constants, derived again from what they stand for, and their errors alone."""

from __future__ import annotations

import jax
import mpmath
import numpy as np
import pytest
from mpmath import mp

from jaxlaws import elementary
from jaxlaws.elementary import FORMATS


@pytest.fixture(autouse=True)
def _precise():
    with mpmath.workprec(300):
        yield


def interpolation(function, end, count):
    """Coefficients of the polynomial that agrees with the function at the Chebyshev nodes of -end to end."""
    nodes = [end * mp.cos(mp.pi * (2 * k + 1) / (2 * count)) for k in range(count)]
    powers = mpmath.matrix([[node**i for i in range(count)] for node in nodes])
    return tuple(float(c) for c in mpmath.lu_solve(powers, mpmath.matrix([function(node) for node in nodes])))


def after_logarithm(r):
    return (mp.mpf(-1) / 2 if abs(r) < 1e-20 else (mp.log1p(r) - r) / r**2) / mp.log(2)


def after_exponential(r):
    return mp.log(2) if abs(r) < 1e-20 else (mp.mpf(2) ** r - 1) / r


@pytest.mark.parametrize("dtype", FORMATS)
def test_polynomials(dtype):
    form = FORMATS[dtype]
    assert form.log2 == interpolation(after_logarithm, mp.mpf(1) / 3, len(form.log2))
    assert form.exp2 == interpolation(after_exponential, mp.mpf(1) / 2, len(form.exp2))


@pytest.mark.parametrize("dtype", FORMATS)
def test_base_2_is_within_2_ulp(dtype):
    random = np.random.default_rng(0)
    x = np.exp2(np.append(random.uniform(-100, 100, 1000), random.uniform(-2, 2, 3000))).astype(dtype)
    z = random.uniform(-100, 100, 3000).astype(dtype)
    with jax.enable_x64(True):
        logarithms, powers = (np.asarray(jax.jit(f)(v)) for f, v in ((elementary.log2, x), (elementary.exp2, z)))
    for found, exact in (
        (logarithms, [mp.log(mp.mpf(float(v)), 2) for v in x]),
        (powers, [mp.mpf(2) ** mp.mpf(float(v)) for v in z]),
    ):
        unit = np.spacing(np.abs(found)).astype(float)
        errors = [float(abs(mp.mpf(float(f)) - e)) / u for f, e, u in zip(found, exact, unit, strict=True)]
        assert max(errors) <= 2
    integers = np.arange(-100, 101).astype(dtype)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(jax.jit(elementary.exp2)(integers), np.exp2(integers))
        np.testing.assert_array_equal(jax.jit(elementary.log2)(np.exp2(integers)), integers)
