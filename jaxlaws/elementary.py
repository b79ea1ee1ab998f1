"""Logarithm and power as polynomials, for the compiler of JAX's CPU backend.

XLA computes the general power on a CPU one element at a time, and the float64 logarithm at a fifth of what the machine
can do. The functions here are straight lines of arithmetic, selects and integer operations on the bits of a number,
without a table in memory, a branch or a division, so that the compiler makes one loop of vector instructions of them,
together with the law around them. `numerics` says what the functions mean; this file says how a CPU gets there.

The logarithm splits x = 2**e * m with m around 1, takes the nearest of a few short factors c, so that r = m * c - 1 is
small, and sums log(x) = e * log(2) - log(c) + (r - r**2/2 + r**3 * P(r)). The exponential splits z = n * log(2) + r and
sums exp(z) = 2**n * (1 + r + r**2 * Q(r)). This is the classic scheme of table-driven elementary functions (Tang, ACM
Transactions on Mathematical Software 16, 1990) with the table made of selects.

Two things about XLA shaped the code. It flushes subnormal numbers to zero in floating-point operations, hence these are
recognised and scaled as integers. And it may rewrite (a + b) - b as a, so that numbers are split by clearing their low
bits, never by adding and taking away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["FORMATS", "Factors", "Format", "hidden", "log", "power"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Factors:
    """The factors c that bring m near 1, and the polynomial P for what remains.

    Attributes:
        factor: The factors, short enough that products with a part of m are exact.
        upper: The m up to which each factor is taken, for all but the last.
        log_high: -log(factor), rounded so that sums with e * log(2) are exact.
        log_low: What that leaves.
        polynomial: Coefficients of P(r) = (log(1 + r) - r + r**2/2) / r**3.
    """

    factor: tuple[float, ...]
    upper: tuple[float, ...]
    log_high: tuple[float, ...]
    log_low: tuple[float, ...]
    polynomial: tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """The constants for one floating-point format. Those in float64 are recomputed by the tests.

    Attributes:
        dtype: The floating-point type.
        integer: The integer type of the same width.
        fraction: Bits after the point.
        coarse: Low bits to clear, to leave less than half of a number.
        fine: Low bits to clear, to leave half of a number: products of two such halves are exact.
        scale: The smallest subnormal number is 2**-scale.
        overflow: exp of this is infinite.
        ln2_high: log(2), rounded so that its products with exponents are exact.
        ln2_low: What that leaves.
        log: For a logarithm with an error of 2 units in the last place.
        power: For one with several bits more.
        exp: Coefficients of Q(r) = (exp(r) - 1 - r) / r**2.
    """

    dtype: Any
    integer: Any
    fraction: int
    coarse: int
    fine: int
    scale: int
    overflow: float
    ln2_high: float
    ln2_low: float
    log: Factors
    power: Factors
    exp: tuple[float, ...]

    def bits(self, x: Any) -> jax.Array:
        """The bits of x as integers."""
        return lax.bitcast_convert_type(x, self.integer)

    def number(self, bits: jax.Array) -> jax.Array:
        """The number of these bits."""
        return lax.bitcast_convert_type(bits, self.dtype)

    def constant(self, x: float) -> Any:
        """The bits of a constant."""
        return self.dtype(x).view(self.integer)

    def cut(self, x: jax.Array, low: int) -> jax.Array:
        """X with its `low` lowest bits cleared."""
        return self.number(self.bits(x) & self.integer(-1 << low))


# fmt: off
FORMATS = {
    "float64": Format(
        dtype=np.float64, integer=np.int64, fraction=52, coarse=33, fine=27, scale=1074, overflow=709.8,
        ln2_high=0.6931471805598903, ln2_low=5.497923018708371e-14,
        log=Factors(
            factor=(1.25, 1.0, 0.75),
            upper=(0.8944271909999159, 1.1547005383792515),
            log_high=(-0.22314355131425145, 0.0, 0.28768207245184385),
            log_low=(4.169796584527195e-14, 0.0, -6.292357389008195e-14),
            polynomial=(
                0.3333333333333333, -0.2500000000000002, 0.20000000000000023, -0.16666666666627983,
                0.14285714285677623, -0.12500000017432247, 0.11111111127632818, -0.09999996540198945,
                0.09090905811867347, -0.08333685205478986, 0.07692641173220986, -0.07123756248042011,
                0.06648564836865772, -0.06773708345199299, 0.06378627677229085,
            ),
        ),
        power=Factors(
            factor=(1.34375, 1.21875, 1.1015625, 1.0, 0.90625, 0.8203125, 0.7421875),
            upper=(
                0.7814180648088069, 0.8630542870002506, 0.9527861346806619, 1.0504514628777804,
                1.1598086020683998, 1.2816030062637027,
            ),
            log_high=(
                -0.2954642128938758, -0.19782574332998593, -0.09672962645845473, 0.0,
                0.09844007281321865, 0.19806991376208316, 0.29815337231912054,
            ),
            log_low=(
                3.993416384387844e-14, 6.604544877082384e-14, -9.638067658552277e-14, 0.0,
                3.3871241029241416e-14, 1.0634128304268335e-14, -4.4204083338755686e-14,
            ),
            polynomial=(
                0.3333333333333333, -0.2500000000000001, 0.2000000000000001, -0.16666666666586022,
                0.14285714285639015, -0.12500000167947917, 0.11111111267870477, -0.09999857282298281,
                0.09090775881623893, -0.08386354455435271, 0.07741795788096714,
            ),
        ),
        exp=(
            0.5000000000000002, 0.16666666666666669, 0.04166666666659083, 0.008333333333327501,
            0.001388888893259198, 0.00019841269874879485, 2.4801499162369603e-05, 2.7557251439360557e-06,
            2.7629857214734595e-07, 2.5107897617857466e-08,
        ),
    ),
    "float32": Format(
        dtype=np.float32, integer=np.int32, fraction=23, coarse=12, fine=12, scale=149, overflow=88.8,
        ln2_high=0.693145751953125, ln2_low=1.4286068203094173e-06,
        log=Factors(
            factor=(1.0,),
            upper=(),
            log_high=(0.0,),
            log_low=(0.0,),
            polynomial=(
                0.3333333333333333, -0.24999638777867475, 0.19999665248080342, -0.16694426174011248,
                0.14311436632794425, -0.11934961228533549, 0.1058770317049481, -0.1408976902088734,
                0.12876515593474397,
            ),
        ),
        power=Factors(
            factor=(1.25, 1.0, 0.75),
            upper=(0.8944271909999159, 1.1547005383792515),
            log_high=(-0.22314453125, 0.0, 0.287689208984375),
            log_low=(9.799357902442336e-07, 0.0, -7.136532594072561e-06),
            polynomial=(
                0.3333333333333333, -0.250000155293093, 0.20000014125207538, -0.16661488531770063,
                0.14281004517918108, -0.12929496104474442, 0.11501714019776418,
            ),
        ),
        exp=(0.5, 0.1666645484945997, 0.04166640206473912, 0.008379218047345264, 0.0013946215379479383),
    ),
}
# fmt: on


def log(x: jax.Array) -> jax.Array:
    """Natural logarithm of a float32 or float64 array, within 2 units in the last place."""
    form = FORMATS[x.dtype.name]
    real = form.dtype
    exponent, m = _split(form, x)
    factor, high, low = _nearest(form.log, m, real)
    r = (m - real(1)) + m * (factor - real(1))  # exact: these factors differ from 1 by a power of two, if at all
    rest = r * r * (r * _polynomial(form.log.polynomial, r, real) - real(0.5)) + (low + exponent * real(form.ln2_low))
    found: jax.Array = exponent * real(form.ln2_high) + (high + (r + rest))
    return found


def power(x: jax.Array, y: jax.Array, *, kept: bool = False) -> jax.Array:
    """x**y for float32 or float64 arrays, within 2 units in the last place; NaN for x < 0.

    XLA computes all that is cheap in its eyes again for each use. What is `kept` it computes once, at the cost of
    writing it to memory.
    """
    form = FORMATS[x.dtype.name]
    real = form.dtype
    exponent, m = _split(form, x)
    high, low = _log_parts(form, exponent, m)

    # z = y * log(x), in two parts, of which the first is exact.
    y_high = form.cut(y, form.fine)
    z = y_high * high
    z_low = (y - y_high) * high + y * low

    n = lax.round(high * (y * real(1 / np.log(2))), lax.RoundingMethod.TO_NEAREST_EVEN)
    r = (z - n * real(form.ln2_high)) + (z_low - n * real(form.ln2_low))
    value = real(1) + (r + r * r * _polynomial(form.exp, r, real))

    # value * 2**n by adding n to the exponent; what would be subnormal is 0.
    shift = form.bits(n + real(1.5 * 2**form.fraction)) << form.fraction
    scaled = jnp.minimum(form.bits(value) + shift, form.constant(np.inf))
    scaled = jnp.where(scaled < form.constant(np.finfo(real).tiny), real(0), form.number(scaled))

    extreme = jnp.where(z < 0, real(0), z * real(np.inf))  # also NaN, where x or y is
    found = jnp.where(jnp.abs(z) < real(form.overflow), scaled, extreme)
    found = jnp.where((x == 1) | (y == 0), real(1), found)  # also for huge y, of which n is NaN
    if kept:  # XLA keeps quotients; LLVM, which comes after it, knows that nothing exceeds infinity, and drops this one
        found = found / jnp.where(z > np.inf, z, real(1))
    return found


def _split(form: Format, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """E and m with x = 2**e * m and m from the root of 1/2 to that of 2.

    e is -inf for zeros, inf for infinity and NaN for NaN and for negative numbers.
    """
    integer, real = form.integer, form.dtype
    bits = form.bits(hidden(x))
    infinity, root = form.constant(np.inf), form.constant(np.sqrt(0.5))
    subnormal = bits < form.constant(np.finfo(real).tiny)
    # The bits of a subnormal number, read as an integer, are its multiple of the smallest one.
    normal = jnp.where(subnormal, form.bits(bits.astype(real)), bits) - root
    m = form.number((normal & integer((1 << form.fraction) - 1)) + root)
    exponent = (normal >> form.fraction).astype(real)
    exponent = jnp.where(subnormal, exponent - real(form.scale), exponent)
    exponent = jnp.where(bits < infinity, exponent, x)
    # The bits of zeros are their own negative. Floating-point comparison takes subnormal numbers for zeros, and LLVM,
    # which does not know that, makes one of others that would do.
    return jnp.where(bits > 0, exponent, jnp.where(-bits > 0, real(np.nan), real(-np.inf))), m


def hidden(x: jax.Array) -> jax.Array:
    """x, of which XLA does not see that it is a constant: one with swapped axes it would read in the wrong order."""
    found: jax.Array = lax.optimization_barrier(x)
    return found


def _log_parts(form: Format, exponent: jax.Array, m: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log(2**exponent * m) in two parts: half of the bits, and the rest with half as many more than x has."""
    real = form.dtype
    factor, log_high, log_low = _nearest(form.power, m, real)
    m_high = form.number((form.bits(m) + form.integer(1 << form.coarse - 1)) & form.integer(-1 << form.coarse))
    # Exact: r = r_high + r_low, the square of r_high, and the sums of these below.
    r_high = m_high * factor - real(1)
    r_low = (m - m_high) * factor
    r = r_high + r_low
    half_square = r_high * (r_high * real(0.5))
    square = r * r
    whole = exponent * real(form.ln2_high) + log_high
    # The part that the rest of the power waits for does not wait for the polynomial.
    high = form.cut(whole + (r - square * (real(0.5) - r * real(1 / 3))), form.fine)
    low = (((whole - high) + r_high) - half_square) + r_low
    cubic = square * r * _polynomial(form.power.polynomial, r, real) - r_low * (r_high + r_low * real(0.5))
    return high, low + (cubic + (log_low + exponent * real(form.ln2_low)))


def _nearest(factors: Factors, m: jax.Array, real: Any) -> tuple[Any, Any, Any]:
    """The factor for each m, and both parts of minus its logarithm."""

    def select(values: Sequence[float], upper: Sequence[float]) -> Any:
        if not upper:
            return real(values[0])
        half = len(values) // 2
        below, above = select(values[:half], upper[: half - 1]), select(values[half:], upper[half:])
        return jnp.where(m < real(upper[half - 1]), below, above)

    return tuple(select(values, factors.upper) for values in (factors.factor, factors.log_high, factors.log_low))


def _polynomial(coefficients: Sequence[float], x: jax.Array, real: Any) -> jax.Array:
    """Sum of c * x**i, in pairs (Estrin's scheme): few operations wait for each other, where all of Horner's do."""
    terms: list[Any] = [real(c) for c in coefficients]
    while len(terms) > 1:
        lows, highs = terms[::2], terms[1::2]
        pairs = [low + high * x for low, high in zip(lows, highs, strict=False)]
        terms, x = pairs + lows[len(highs) :], x * x
    found: jax.Array = terms[0]
    return found
