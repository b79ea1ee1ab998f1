"""The constants of the elementary functions, derived again from what they stand for."""

from __future__ import annotations

import itertools

import mpmath
import pytest
from mpmath import mp

from jaxlaws.elementary import FORMATS

# log(2) and the logarithms of the factors have this many bits after the point, so that their sums with one another and
# with multiples of log(2) are exact.
HIGH_BITS = {"float64": 42, "float32": 16}

# Beyond log(2)/2 the exponential is asked for what rounding the number of halvings from half of the logarithm adds.
BEYOND = {"float64": "0.026", "float32": "0.083"}

CASES = [(dtype, use) for dtype in FORMATS for use in ("log", "power")]


@pytest.fixture(autouse=True)
def _precise():
    with mpmath.workprec(300):
        yield


def interpolation(function, end, count):
    """Coefficients of the polynomial that agrees with the function at the Chebyshev nodes of -end to end."""
    nodes = [end * mp.cos(mp.pi * (2 * k + 1) / (2 * count)) for k in range(count)]
    powers = mpmath.matrix([[node**i for i in range(count)] for node in nodes])
    return tuple(float(c) for c in mpmath.lu_solve(powers, mpmath.matrix([function(node) for node in nodes])))


def ends(factors):
    """The ends of the intervals of m that belong to each factor."""
    inner = [1 / mp.sqrt(mp.mpf(a) * mp.mpf(b)) for a, b in itertools.pairwise(factors)]
    return [mp.sqrt(mp.mpf(1) / 2), *inner, mp.sqrt(2)]


def after_logarithm(r):
    return mp.mpf(1) / 3 if abs(r) < 1e-20 else (mp.log1p(r) - r + r**2 / 2) / r**3


def after_exponential(r):
    return mp.mpf(1) / 2 if abs(r) < 1e-20 else (mp.expm1(r) - r) / r**2


def in_two(value, bits):
    """A number as a multiple of 2**-bits, and what that leaves."""
    high = mp.nint(mp.ldexp(value, bits)) / mp.mpf(2) ** bits
    return float(high), float(value - high)


@pytest.mark.parametrize("dtype", FORMATS)
def test_log_of_two_in_two_parts(dtype):
    form = FORMATS[dtype]
    assert (form.ln2_high, form.ln2_low) == in_two(mp.log(2), HIGH_BITS[dtype])
    biggest = form.scale  # of all exponents, those of subnormal numbers too
    bits = HIGH_BITS[dtype] + mp.frexp(mp.mpf(form.ln2_high) * biggest)[1]
    assert bits <= form.fraction + 1, "products of exponents and log(2) are exact"


@pytest.mark.parametrize(("dtype", "use"), CASES)
def test_logs_of_factors_in_two_parts(dtype, use):
    factors = getattr(FORMATS[dtype], use)
    parts = [in_two(-mp.log(mp.mpf(c)), HIGH_BITS[dtype]) for c in factors.factor]
    assert list(zip(factors.log_high, factors.log_low, strict=True)) == parts


@pytest.mark.parametrize(("dtype", "use"), CASES)
def test_factors_change_where_both_are_as_good(dtype, use):
    factors = getattr(FORMATS[dtype], use)
    assert factors.upper == tuple(float(end) for end in ends(factors.factor)[1:-1])
    assert list(factors.factor) == sorted(factors.factor, reverse=True)


@pytest.mark.parametrize("dtype", FORMATS)
def test_factors_are_so_short_that_products_are_exact(dtype):
    form = FORMATS[dtype]
    for factor in form.log.factor:
        assert abs(factor - 1) in (0, 0.25), "m times what exceeds 1 is exact"
    kept = form.fraction + 1 - form.coarse  # bits after the point of the upper part of m, below 1
    factors = form.power.factor
    for factor, (low, high) in zip(factors, itertools.pairwise(ends(factors)), strict=True):
        after = kept + next(bits for bits in range(60) if (factor * 2**bits).is_integer())
        off = max(abs(m * factor - 1) for m in (low, high)) + mp.mpf(2) ** -kept
        assert 2 * (after + mp.frexp(off)[1]) <= form.fraction + 1, "the square of the upper part of r is exact"


@pytest.mark.parametrize(("dtype", "use"), CASES)
def test_polynomial_of_the_logarithm(dtype, use):
    factors = getattr(FORMATS[dtype], use)
    intervals = itertools.pairwise(ends(factors.factor))
    far = max(abs(m * c - 1) for c, both in zip(factors.factor, intervals, strict=True) for m in both)
    assert factors.polynomial == interpolation(after_logarithm, far, len(factors.polynomial))


@pytest.mark.parametrize("dtype", FORMATS)
def test_polynomial_of_the_exponential(dtype):
    form = FORMATS[dtype]
    end = mp.log(2) / 2 + mp.mpf(BEYOND[dtype])
    assert form.exp == interpolation(after_exponential, end, len(form.exp))
