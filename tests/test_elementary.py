"""The constants of the elementary functions, derived again from what they stand for."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from mpmath import mp

from jaxlaws.elementary import FORMATS

# log(2) and log(4/3) have this many bits after the point, so that their sums with one another and with multiples of
# log(2) are exact.
HIGH_BITS = {"float64": 42, "float32": 16}


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
    return mp.mpf(1) / 3 if abs(r) < 1e-20 else (mp.log1p(r) - r + r**2 / 2) / r**3


def after_exponential(r):
    return mp.mpf(1) / 2 if abs(r) < 1e-20 else (mp.expm1(r) - r) / r**2


def in_two(value, bits):
    """A number as a multiple of 2**-bits, and what that leaves."""
    high = mp.nint(mp.ldexp(value, bits)) / mp.mpf(2) ** bits
    return float(high), float(value - high)


@pytest.mark.parametrize("dtype", FORMATS)
def test_logarithms_in_two_parts(dtype):
    form, bits = FORMATS[dtype], HIGH_BITS[dtype]
    assert form.ln2 == in_two(mp.log(2), bits)
    assert form.ln4_3 == in_two(mp.log(mp.mpf(4) / 3), bits)
    largest = mp.mpf(form.ln2[0]) * (np.finfo(dtype).maxexp + 1)
    assert bits + mp.frexp(largest)[1] <= form.fraction + 1, "sums of products of exponents and log(2) are exact"


@pytest.mark.parametrize("dtype", FORMATS)
def test_polynomials(dtype):
    form = FORMATS[dtype]
    far = max(abs(mp.mpf(m) * c - 1) for m, c in ((0.8, 1), (1.2, 1), (1.2, 0.75), (1.6, 0.75)))
    assert form.log == interpolation(after_logarithm, mp.mpf("0.2"), len(form.log))
    assert far < mp.mpf("0.2") + 1e-15
    assert form.exp == interpolation(after_exponential, mp.log(2) / 2 + mp.mpf("0.001"), len(form.exp))
