"""The elementary functions that laws are written with.

Laws use these in place of `**` and `jnp.log`, so that speed and accuracy are decided in one place.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from jaxlaws import elementary

__all__ = ["at_least", "keep_powers", "log", "matvec", "plain", "positive_or", "power", "saturation", "worn"]


def log(x: ArrayLike) -> jax.Array:
    """Natural logarithm, elementwise: -inf at 0, NaN below.

    In float32 and float64 the error is at most 2 units in the last place; subnormal numbers count as 0. The result has
    the dtype of `x`.

    Example:
        >>> print(log(0.5))
        -0.6931472
    """
    found: jax.Array = _log(_way.get() == "xla", *_floating(x))
    return found


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)  # so that it is traced once, and not with every use
def _log(plain: bool, x: jax.Array) -> jax.Array:
    return lax.log(elementary.hidden(x)) if plain else _on_cpu(_log_on_cpu, lax.log, x)


def _log_on_cpu(x: jax.Array) -> jax.Array:
    found: jax.Array = elementary.log2(x) * x.dtype.type(np.log(2))
    return found


@_log.defjvp
def _log_jvp(plain: bool, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (change,) = primals, tangents
    return _log(plain, x), change / x


def power(x: ArrayLike, exponent: ArrayLike) -> jax.Array:
    """`x` to the power of `exponent`, elementwise, for x >= 0; NaN below 0, unless the exponent is 0.

    It is exp(exponent * log(x)): in float32 and float64 the relative error is at most 2 + 1.2 * |exponent * log(x)|
    times the spacing of numbers at 1. Zeros, infinities and NaN are as in NumPy, but that 1 to the power of NaN is NaN
    and that all zeros are positive; subnormal numbers count as 0, and results below twice the least normal number may
    be 0. Derivatives of any order by either argument are as exact where the power and 1/x are normal numbers, and at 0
    and infinity they are their limits, or NaN where one part of them goes to infinity and another to minus infinity.
    The dtype is that of the arguments.

    Example:
        >>> import jax
        >>> with jax.enable_x64(True):
        ...     print(power(1e9, -0.5).round(15))
        3.162277660...e-05
    """
    found: jax.Array = _power(_way.get(), *_floating(x, exponent))
    return found


_Way = Literal["again", "kept", "xla"]
_way: ContextVar[_Way] = ContextVar("_way", default="again")


@contextlib.contextmanager
def _going(way: _Way) -> Iterator[None]:
    token = _way.set(way)
    try:
        yield
    finally:
        _way.reset(token)


def keep_powers() -> contextlib.AbstractContextManager[None]:
    """While tracing here, powers are computed once and kept in memory, however often they are used.

    That pays where one power serves many points, as on a grid. Derivatives do it anyway, and `plain` comes before it.
    """
    return _going("xla" if _way.get() == "xla" else "kept")


def plain() -> contextlib.AbstractContextManager[None]:
    """While tracing here, powers and logarithms are those of XLA, on CPUs too.

    That pays where many of them are of few points each, as in a search: they compile in half of the time.
    """
    return _going("xla")


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)  # by its name `curvature` knows it
def _power(way: _Way, x: jax.Array, y: jax.Array) -> jax.Array:
    def elsewhere(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.power(jnp.where(x < 0, jnp.nan, jnp.abs(x)), y)  # the power of -0.0 may be -inf

    def on_cpu(x: jax.Array, y: jax.Array) -> jax.Array:
        far = np.finfo(y.dtype).max
        z = jnp.where(y == 0, 0, jnp.clip(y, -far, far) * elementary.log2(x))  # log(1) is 0, times infinity too
        found = elementary.exp2(z)
        if way == "kept":  # XLA keeps quotients; LLVM, which comes after it, sees that this one divides by 1
            found = found / jnp.where(z > np.inf, z, 1)
        return found

    return elsewhere(elementary.hidden(x), y) if way == "xla" else _on_cpu(on_cpu, elsewhere, x, y)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _derivative(way: _Way, i: int, j: int, x: jax.Array, y: jax.Array) -> jax.Array:
    """The derivative of x**y, `i` times by x and `j` times by y."""
    power: jax.Array = _power(way, x, y)  # the one that all share, and y - i is not rounded
    if i:
        at_zero = jnp.where(y > i, 0.0, jnp.where(y < i, jnp.inf, jnp.where(y == i, 1.0, jnp.nan)))
        # XLA would make (a / b) / x one quotient, and compute a and b again.
        power = functools.reduce(lambda a, b: a * (1 / b), [x] * i, power)
        power = jnp.where(x == 0, at_zero, jnp.where(x == jnp.inf, 1 / at_zero, power))
    terms = []
    for k in range(min(i, j) + 1):  # derivatives by y of y * (y - 1) * ... times those of a power
        roots = itertools.combinations(range(i), i - k)
        factor = math.perm(j, k) * functools.reduce(jnp.add, [math.prod([y - root for root in each]) for each in roots])
        term = jnp.where(power == 0, 0, power * _log(way == "xla", x) ** (j - k)) if j > k else power
        terms.append(jnp.where(factor == 0, 0, factor * term) if i else term)  # 0, not 0 * inf, at x = 0
    return functools.reduce(jnp.add, terms)


def _tangent(way: _Way, i: int, j: int, value: jax.Array, primals: Any, tangents: Any) -> jax.Array:
    """How a derivative changes when x and y do."""
    found = jnp.zeros_like(value)
    for tangent, order in zip(tangents, ((i + 1, j), (i, j + 1)), strict=True):
        if not isinstance(tangent, SymbolicZero):
            found = found + tangent * _derivative(way, *order, *primals)
    return found


@functools.partial(_power.defjvp, symbolic_zeros=True)
def _power_jvp(way: _Way, primals: Any, tangents: Any) -> tuple[jax.Array, Any]:
    way = "kept" if way == "again" else way
    value = _power(way, *primals)
    return value, _tangent(way, 0, 0, value, primals, tangents)


@functools.partial(_derivative.defjvp, symbolic_zeros=True)
def _derivative_jvp(way: _Way, i: int, j: int, primals: Any, tangents: Any) -> tuple[jax.Array, Any]:
    value = _derivative(way, i, j, *primals)
    return value, _tangent(way, i, j, value, primals, tangents)


def _floating(*xs: ArrayLike) -> list[jax.Array]:
    """Arrays of one floating-point dtype."""
    dtype = jnp.result_type(float, *xs)
    return [jnp.asarray(x, dtype) for x in xs]


def _on_cpu(on_cpu: Callable[..., jax.Array], elsewhere: Callable[..., jax.Array], *xs: jax.Array) -> jax.Array:
    """One function on CPUs, and XLA's own, which is fast and exact there, on other backends and for other dtypes."""
    if xs[0].dtype.name not in elementary.FORMATS:
        return elsewhere(*xs)
    found: jax.Array = lax.platform_dependent(*xs, cpu=on_cpu, default=elsewhere)
    return found


def at_least(x: ArrayLike, floor: float) -> jax.Array:
    """`x`, or `floor` where x is less; NaN stays NaN.

    Unlike that of `jnp.maximum`, the derivative at `x == floor` is that from above, 1 and not 1/2: an input that sits
    on its floor, such as one expert, is an ordinary point of the law.
    """
    return jnp.where(jnp.less(x, floor), floor, x)


def positive_or(x: ArrayLike, other: float) -> jax.Array:
    """`x` where it is positive, and `other` elsewhere (also for NaN)."""
    return jnp.where(jnp.greater(x, 0), x, other)


def saturation(x: ArrayLike, least: ArrayLike = 0.0) -> jax.Array:
    """1 - exp(least - x), elementwise, without the loss of digits that a small exponent would bring; 0 up to `least`.

    Searches know that its logarithm is a concave function of that of x, if `least` is not negative.

    Example:
        >>> print(f"{saturation(1e-6):.4g} {saturation(1.0):.4g} {saturation(1.0, 0.5):.4g} {saturation(1.0, 2.0):.4g}")
        1e-06 0.6321 0.3935 0
    """
    found: jax.Array = _saturation(*_floating(x, least))
    return found


@jax.custom_jvp
@jax.jit  # by its name `curvature` knows it
def _saturation(x: jax.Array, least: jax.Array) -> jax.Array:
    above = jnp.maximum(x - least, 0)
    return jnp.tanh(above / 2) * (1 + jnp.exp(-above))


@_saturation.defjvp
def _saturation_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x, least), (change, of_least) = primals, tangents
    # That of tanh would be 1 - tanh**2, of which no digit is left where tanh is nearly 1.
    slope = jnp.where(x <= least, 0, jnp.exp(-jnp.maximum(x - least, 0)))
    return _saturation(x, least), slope * (change - of_least)


def worn(amount: ArrayLike, limit: ArrayLike, scale: ArrayLike) -> jax.Array:
    """What an amount is worth that counts in full up to a limit, and beyond it less and less; all are positive.

    That is limit * (1 + scale * (1 - exp((1 - amount / limit) / scale))) beyond the limit, and never more than
    limit * (1 + scale). Searches know that its logarithm is a concave function of those of amount and limit.

    Example:
        >>> print(f"{worn(3.0, 4.0, 2.0):.4g} {worn(8.0, 4.0, 2.0):.4g} {worn(1e9, 4.0, 2.0):.4g}")
        3 7.148 12
    """
    found: jax.Array = _worn(*_floating(amount, limit, scale))
    return found


@jax.jit
def _worn(amount: jax.Array, limit: jax.Array, scale: jax.Array) -> jax.Array:
    full = jnp.minimum(amount, limit)
    return full + full * scale * (1 - jnp.exp((1 - amount / full) / scale))


def matvec(*terms: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Sum of the products of small matrices with vectors of the same length, as one sum over columns.

    XLA turns a batch of small products into a matrix product that costs many times this sum, which it fuses with the
    elementwise work around it; and one sum of all columns into one loop, where two sums become two.

    Example:
        >>> import jax.numpy as jnp
        >>> print(matvec((jnp.eye(2), jnp.array([1.0, 2.0])), (jnp.ones((2, 2)), jnp.array([3.0, 4.0]))))
        [8. 9.]
    """
    if _way.get() == "xla":  # of few points, for which less is to be compiled
        matrices, vectors = zip(*terms, strict=True)
        return jnp.sum(jnp.concatenate(matrices, -1) * jnp.concatenate(vectors), -1)
    columns = [
        matrix_column[:, 0] * element
        for matrix, vector in terms
        for matrix_column, element in zip(_split(matrix), _split(vector), strict=True)
    ]
    return functools.reduce(jnp.add, columns)


def _split(x: jax.Array) -> Sequence[jax.Array]:
    """The parts of x along its last axis. Indexing does the same, with a far slower derivative: a sum of scatters."""
    return lax.split(x, (1,) * x.shape[-1], axis=x.ndim - 1)
