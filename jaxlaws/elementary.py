"""Logarithm and exponential as polynomials, for the compiler of JAX's CPU backend.

XLA computes the general power on a CPU one element at a time, and the float64 logarithm at a fifth of what the machine
can do. The functions here are straight lines of arithmetic, selects and integer operations on the bits of a number,
without a table in memory, a branch or a division, so that the compiler makes one loop of vector instructions of them,
together with the law around them.

The logarithm splits x = 2**e * (1 + r) with abs(r) <= 1/3, and is e + r * (1/log(2) + r * P(r)). The exponential
splits z = n + r with abs(r) <= 1/2, and is 2**n * (1 + r * Q(r)). To base 2, e and n are integers, so that no multiple
of log(2) is to be rounded.

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

__all__ = ["FORMATS", "Format", "exp2", "hidden", "log2"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """The constants for one floating-point format. The tests compute them again.

    Attributes:
        dtype: The floating-point type.
        integer: The integer type of the same width.
        fraction: Bits after the point.
        log2: Coefficients of P(r) = (log2(1 + r) - r/log(2)) / r**2.
        exp2: Coefficients of Q(r) = (2**r - 1) / r.
    """

    dtype: Any
    integer: Any
    fraction: int
    log2: tuple[float, ...]
    exp2: tuple[float, ...]

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
        log2=(
            -0.7213475204444817, 0.4808983469629877, -0.3606737602223506, 0.28853900817789785,
            -0.24044917344897884, 0.20609929152440531, -0.18033688383857252, 0.1602994525598162,
            -0.14426928771221936, 0.1311538872699811, -0.12023177316199522, 0.11098342816982747,
            -0.10290518991295654, 0.09604124912474842, -0.09194797417601162, 0.0865694411387195,
            -0.06715635642463073, 0.06348390885060783, -0.12215105657693326, 0.11659894222526972,
        ),
        exp2=(
            0.6931471805599453, 0.24022650695910097, 0.0555041086648216, 0.009618129107606888,
            0.0013333558146416936, 0.0001540353044173605, 1.525273382983612e-05, 1.321544258792169e-06,
            1.0178062445845774e-07, 7.072585949269223e-09, 4.4549605981865186e-10,
        ),
    ),
    "float32": Format(
        dtype=np.float32, integer=np.int32, fraction=23,
        log2=(
            -0.7213475204444817, 0.4808974710506983, -0.36067295499995067, 0.28864337251945227,
            -0.24054510673668236, 0.20278251210339818, -0.17728877724597428, 0.19834617416212144,
            -0.1792144716707159,
        ),
        exp2=(
            0.6931471880262288, 0.24022650760568126, 0.05550357114219078, 0.009618082557277852,
            0.0013390863364671234, 0.0001545316294512069,
        ),
    ),
}
# fmt: on


def log2(x: jax.Array) -> jax.Array:
    """Logarithm to base 2 of a float32 or float64 array, within 2 units in the last place."""
    form = FORMATS[x.dtype.name]
    real, integer, info = form.dtype, form.integer, np.finfo(form.dtype)
    x = hidden(x)
    least, scale = real(2 / 3).view(integer), real(2.0**form.fraction)
    bits = form.bits(x) + integer((info.maxexp << form.fraction) - int(least))
    # The exponent and its bias as the last bits of a number, as not every processor converts integers of 64 bits.
    biased = form.number(lax.shift_right_logical(bits, integer(form.fraction)) | scale.view(integer))
    r = form.number((bits & integer((1 << form.fraction) - 1)) + least) - real(1)
    rest = r * (real(1 / np.log(2)) + r * form.polynomial(form.log2, r))
    value = (biased - real(scale + info.maxexp)) + rest
    value = jnp.where(x < real(np.inf), value, x)  # also for NaN
    return jnp.where(x < info.tiny, jnp.where(x >= 0, real(-np.inf), real(np.nan)), value)


def exp2(z: jax.Array) -> jax.Array:
    """2 to the power of a float32 or float64 array, within 2 units in the last place; 0 where nearly subnormal."""
    form = FORMATS[z.dtype.name]
    real, info = form.dtype, np.finfo(form.dtype)
    # The least number is written as 0, and twice the largest power of two as infinity.
    z = jnp.where(z > info.maxexp, real(info.maxexp), z)
    z = jnp.where(z < info.minexp, real(info.minexp), z)
    n = lax.round(z, lax.RoundingMethod.TO_NEAREST_EVEN)
    r = z - n
    double = real(2) + r * form.polynomial([2 * c for c in form.exp2], r)
    shifted = n + real(1.5 * 2**form.fraction + info.maxexp - 2)  # n - 1 and the bias of exponents, in the lowest bits
    found: jax.Array = double * form.number(form.bits(shifted) << form.fraction)
    return found


def hidden(x: jax.Array) -> jax.Array:
    """x, of which XLA does not see that it is a constant: one with swapped axes it would read in the wrong order."""
    found: jax.Array = lax.optimization_barrier(x)
    return found
