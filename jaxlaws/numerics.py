"""The elementary functions that laws are written with.

Laws use these in place of `**` and `jnp.log`, so that speed and accuracy are decided in one place.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from jaxlaws import elementary

__all__ = ["at_least", "keep_powers", "log", "matvec", "plain", "positive_or", "power", "saturation", "worn"]


def log(x: ArrayLike) -> jax.Array:
    """Natural logarithm, elementwise: -inf at 0, NaN below.

    In float32 and float64 the error is at most 2 units in the last place, for subnormal numbers too. The result has
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
    return lax.log(elementary.hidden(x)) if plain else _on_cpu(elementary.log, lax.log, x)


@_log.defjvp
def _log_jvp(plain: bool, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (change,) = primals, tangents
    return _log(plain, x), change / x


def power(x: ArrayLike, exponent: ArrayLike) -> jax.Array:
    """`x` to the power of `exponent`, elementwise, for x >= 0; NaN below 0, unless the exponent is 0.

    In float32 and float64 the error is at most 2 units in the last place wherever the result is a normal number. Zeros,
    infinities and NaN are as in NumPy, with all zeros positive. Derivatives of any order by either argument are as
    exact where the power and 1/x are normal numbers, and at 0 and infinity they are their limits, or NaN where one part
    of them goes to infinity and another to minus infinity. The dtype is that of the arguments.

    Example:
        >>> import jax
        >>> with jax.enable_x64(True):
        ...     print(power(1e9, -0.5))
        3.1622776601683795e-05
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
@functools.partial(jax.jit, static_argnums=0)
def _power(way: _Way, x: jax.Array, y: jax.Array) -> jax.Array:
    def elsewhere(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.power(jnp.where(x < 0, jnp.nan, jnp.abs(x)), y)  # the power of -0.0 may be -inf

    if way == "xla":
        return elsewhere(elementary.hidden(x), y)
    return _on_cpu(functools.partial(elementary.power, kept=way == "kept"), elsewhere, x, y)


class _Term(NamedTuple):
    """The function q(y) * x**(y - less) * log(x)**logs. All derivatives of a power are sums of such.

    The polynomial q is the sum of the products of y minus these roots.
    """

    products: tuple[tuple[int, ...], ...] = ((),)
    less: int = 0
    logs: int = 0

    def by_x(self) -> list[_Term]:
        """The terms of its derivative by x."""
        steeper = _Term(tuple((*roots, self.less) for roots in self.products), self.less + 1, self.logs)
        return [steeper, *[self._replace(less=self.less + 1, logs=self.logs - 1)] * self.logs]

    def by_y(self) -> list[_Term]:
        """The terms of its derivative by y."""
        products = tuple(roots[:i] + roots[i + 1 :] for roots in self.products for i in range(len(roots)))
        return [*([self._replace(products=products)] if products else []), self._replace(logs=self.logs + 1)]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
@functools.partial(jax.jit, static_argnums=(0, 1))
def _term(way: _Way, term: _Term, x: jax.Array, y: jax.Array) -> jax.Array:
    value: jax.Array = _power(way, x, y)  # the one that all terms share, and y - less is not rounded
    for _ in range(term.less):
        value = value * (1 / x)  # XLA would make (a / b) / x one quotient, and compute a and b again
    if term.less:
        less = term.less
        at_zero = jnp.where(y > less, 0.0, jnp.where(y < less, jnp.inf, jnp.where(y == less, 1.0, jnp.nan)))
        value = jnp.where(x == 0, at_zero, jnp.where(x == jnp.inf, 1 / at_zero, value))
    if term.logs:
        value = jnp.where(value == 0, 0, _log(way == "xla", x) ** term.logs * value)  # 0, not -inf * 0, at x = 0
    if term.products != ((),):
        factor = functools.reduce(jnp.add, [math.prod([y - root for root in roots]) for roots in term.products])
        value = jnp.where(factor == 0, 0, factor * value)  # 0, not 0 * inf, at x = 0
    return value


def _tangent(way: _Way, term: _Term, value: jax.Array, primals: Any, tangents: Any) -> jax.Array:
    """How the term, which has this value, changes when x and y do."""
    found = jnp.zeros_like(value)
    for tangent, terms in zip(tangents, (term.by_x(), term.by_y()), strict=True):
        if not isinstance(tangent, SymbolicZero):
            found = found + tangent * functools.reduce(jnp.add, [_term(way, each, *primals) for each in terms])
    return found


@functools.partial(_power.defjvp, symbolic_zeros=True)
def _power_jvp(way: _Way, primals: Any, tangents: Any) -> tuple[jax.Array, Any]:
    way = "kept" if way == "again" else way
    value = _power(way, *primals)
    return value, _tangent(way, _Term(), value, primals, tangents)


@functools.partial(_term.defjvp, symbolic_zeros=True)
def _term_jvp(way: _Way, term: _Term, primals: Any, tangents: Any) -> tuple[jax.Array, Any]:
    value = _term(way, term, *primals)
    return value, _tangent(way, term, value, primals, tangents)


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
