"""Logarithm and exponential as polynomials, for the compiler of JAX's CPU backend.

XLA computes the general power on a CPU one element at a time, and the float64 logarithm at a fifth of what the machine
can do. The functions here are straight lines of arithmetic, selects and integer operations on the bits of a number,
without a table in memory, a branch or a division, so that the compiler makes one loop of vector instructions of them,
together with the law around them.

The logarithm splits x = 2**e * m with m from 0.8 to 1.6, takes c = 1 or, above 1.2, c = 3/4, so that r = m * c - 1 is
at most 0.2, and sums log(x) = e * log(2) - log(c) + (r - r**2/2 + r**3 * P(r)). The exponential splits
z = n * log(2) + r and sums exp(z) = 2**n * (1 + r + r**2 * Q(r)). This is the classic scheme of table-driven elementary
functions (Tang, ACM Transactions on Mathematical Software 16, 1990) with a table of two factors.

XLA takes subnormal numbers for zeros, and so do these functions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["FORMATS", "Format", "exp", "hidden", "log"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """The constants for one floating-point format. The tests compute them again.

    Attributes:
        dtype: The floating-point type.
        integer: The integer type of the same width.
        fraction: Bits after the point.
        ln2: log(2) in two parts, of which the first is so short that its products with exponents are exact.
        ln4_3: log(4/3) in two parts, so that sums of the first with those products are exact.
        log: Coefficients of P(r) = (log(1 + r) - r + r**2/2) / r**3.
        exp: Coefficients of Q(r) = (exp(r) - 1 - r) / r**2.
    """

    dtype: Any
    integer: Any
    fraction: int
    ln2: tuple[float, float]
    ln4_3: tuple[float, float]
    log: tuple[float, ...]
    exp: tuple[float, ...]

    def bits(self, x: Any) -> jax.Array:
        """The bits of x as integers."""
        return lax.bitcast_convert_type(x, self.integer)

    def number(self, bits: jax.Array) -> jax.Array:
        """The number of these bits."""
        return lax.bitcast_convert_type(bits, self.dtype)

    def polynomial(self, coefficients: Sequence[float], x: jax.Array) -> jax.Array:
        """Sum of c * x**i, in pairs (Estrin's scheme): few operations wait for each other."""
        terms: list[Any] = [self.dtype(c) for c in coefficients]
        while len(terms) > 1:
            lows, highs = terms[::2], terms[1::2]
            pairs = [low + high * x for low, high in zip(lows, highs, strict=False)]
            terms, x = pairs + lows[len(highs) :], x * x
        found: jax.Array = terms[0]
        return found


# fmt: off
FORMATS = {
    "float64": Format(
        dtype=np.float64, integer=np.int64, fraction=52,
        ln2=(0.6931471805598903, 5.497923018708371e-14), ln4_3=(0.28768207245184385, -6.292357389008195e-14),
        log=(
            0.33333333333333465, -0.2500000000000013, 0.19999999999672824, -0.16666666666357435, 0.14285714416339865,
            -0.12500000123459265, 0.11111091590340633, -0.09999981550564756, 0.09092294301902219, -0.08334642471915177,
            0.07642116328550316, -0.07095425413440959, 0.07556840446765599, -0.07091109008367438,
        ),
        exp=(
            0.5000000000000001, 0.16666666666666669, 0.04166666666662317, 0.008333333333329989, 0.0013888888917690603,
            0.0001984126986342035, 2.480152055701783e-05, 2.755726789174553e-06, 2.762043894863442e-07,
            2.510065503606659e-08,
        ),
    ),
    "float32": Format(
        dtype=np.float32, integer=np.int32, fraction=23,
        ln2=(0.693145751953125, 1.4286068203094173e-06), ln4_3=(0.287689208984375, -7.136532594072561e-06),
        log=(
            0.3333335668952203, -0.2500002103999579, 0.19989508857322277, -0.16657216227386684, 0.14977802158010886,
            -0.13123313468814543,
        ),
        exp=(0.5, 0.16666575985420823, 0.041666553362644264, 0.00836334581098711, 0.0013926391896140632),
    ),
}
# fmt: on


def log(x: jax.Array) -> jax.Array:
    """Natural logarithm of a float32 or float64 array, within 2 units in the last place."""
    form = FORMATS[x.dtype.name]
    real, integer, info = form.dtype, form.integer, np.finfo(form.dtype)
    x = hidden(x)
    least, scale = real(0.8).view(integer), real(2.0**form.fraction)
    bits = form.bits(x) - least
    m = form.number((bits & integer((1 << form.fraction) - 1)) + least)
    # The exponent and its bias as the last bits of a number, as not every processor converts integers of 64 bits.
    biased = lax.shift_right_logical(bits + integer(info.maxexp << form.fraction), integer(form.fraction))
    exponent = form.number(biased | scale.view(integer)) - real(scale + info.maxexp)
    quarter, high, low = (jnp.where(m > real(1.2), real(value), real(0)) for value in (0.25, *form.ln4_3))
    r = (m - real(1)) - m * quarter  # exact
    rest = r * r * (r * form.polynomial(form.log, r) - real(0.5)) + (low + exponent * real(form.ln2[1]))
    value = (exponent * real(form.ln2[0]) + high) + (r + rest)
    value = jnp.where(x < real(np.inf), value, x)  # also for NaN
    return jnp.where(x < real(info.tiny), jnp.where(x >= 0, real(-np.inf), real(np.nan)), value)


def exp(z: jax.Array) -> jax.Array:
    """Exponential of a float32 or float64 array, within 2 units in the last place; 0 where it is nearly subnormal."""
    form = FORMATS[z.dtype.name]
    real, info = form.dtype, np.finfo(form.dtype)
    # Half of the least number is written as 0, and twice the largest power of two as infinity.
    least, most = real(info.minexp * np.log(2)), real((info.maxexp + 1) * np.log(2))
    z = jnp.where(z > most, most, z)
    z = jnp.where(z < least, least, z)
    n = lax.round(z * real(1 / np.log(2)), lax.RoundingMethod.TO_NEAREST_EVEN)
    r = (z - n * real(form.ln2[0])) - n * real(form.ln2[1])
    double = real(2) + real(2) * (r + r * r * form.polynomial(form.exp, r))
    shifted = n + real(1.5 * 2**form.fraction + info.maxexp - 2)  # n - 1 and the bias of exponents, in the lowest bits
    found: jax.Array = double * form.number(form.bits(shifted) << form.fraction)
    return found


def hidden(x: jax.Array) -> jax.Array:
    """x, of which XLA does not see that it is a constant: one with swapped axes it would read in the wrong order."""
    found: jax.Array = lax.optimization_barrier(x)
    return found
