"""Whether a function is convex, found out from how it is computed.

A function is traced, and its operations are walked through with what is known of each number on the way: whether it
is a convex or a concave function of the inputs, whether its logarithm is, and between which values it lies. That is
the calculus of disciplined convex programming (Grant, Boyd and Ye 2006), log-log convexity included (Agrawal, Diamond
and Boyd 2019): sums of powers with positive factors are convex in log inputs, whatever the exponents. What is known
can depend on the signs of coefficients, and is therefore an array of booleans. What is not known is not convex.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

__all__ = ["Curve", "curve"]


class Curve(NamedTuple):
    """What is known of a number that depends on the inputs.

    Attributes:
        convex: Whether it is a convex function of them.
        concave: Whether it is a concave one.
        log_convex: Whether it is positive, and its logarithm convex.
        log_concave: Whether it is positive, and its logarithm concave.
        low: It is not less than this.
        high: It is not greater than this.
    """

    convex: Any
    concave: Any
    log_convex: Any
    log_concave: Any
    low: Any
    high: Any


class _Comparison(NamedTuple):
    """Where a comparison is known to hold, and where it is known not to."""

    true: Any
    false: Any


def curve(fn: Callable[..., Any], low: jax.Array, high: jax.Array, *known: Any) -> Curve:
    """What is known of `fn(x, *known)`, a number, for sequences x of numbers between low and high."""
    ends = list(zip(low, high, strict=True))
    jaxpr = jax.make_jaxpr(fn)([a for a, _ in ends], *known)
    (found,) = _walk(jaxpr, [*(Curve(True, True, False, False, a, b) for a, b in ends), *jax.tree.leaves(known)])
    return _as_curve(found)


def _as_curve(x: Any) -> Curve:
    if isinstance(x, Curve):
        return x
    if isinstance(x, _Comparison):
        return _UNKNOWN
    return Curve(True, True, x > 0, x > 0, x, x)


_UNKNOWN = Curve(False, False, False, False, -jnp.inf, jnp.inf)


def _walk(jaxpr: Any, arguments: list[Any]) -> list[Any]:
    """The outputs of a traced function, each a known array or what is known of it."""
    values: dict[Any, Any] = dict(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
    values |= dict(zip(jaxpr.jaxpr.invars, arguments, strict=True))

    def read(variable: Any) -> Any:
        return jnp.asarray(variable.val) if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.jaxpr.eqns:
        given = [read(v) for v in equation.invars]
        inner = _called(equation)
        name = equation.params["name"] if equation.params.get("name") in _OURS else equation.primitive.name
        if not any(isinstance(x, (Curve, _Comparison)) for x in given):
            found = _evaluated(equation, given, inner)
        elif inner is None and name != "select_n" and any(isinstance(x, _Comparison) for x in given):
            found = [_UNKNOWN] * len(equation.outvars)
        elif name in _RULES:
            found = [_RULES[name](*given, **_parameters(name, equation.params))]
        elif inner is not None and len(inner.jaxpr.invars) == len(given):
            found = _walk(inner, given)
        else:
            found = [_UNKNOWN] * len(equation.outvars)
        values |= dict(zip(equation.outvars, found, strict=True))
    return [read(v) for v in jaxpr.jaxpr.outvars]


def _called(equation: Any) -> Any:
    """The function that an operation calls once, with its own arguments; those of loops and of sums are others."""
    if equation.primitive.name not in _CALLS:
        return None
    inner = next((equation.params[k] for k in ("jaxpr", "call_jaxpr") if k in equation.params), None)
    return ClosedJaxpr(inner, ()) if isinstance(inner, Jaxpr) else inner


def _evaluated(equation: Any, given: list[Any], inner: Any) -> list[Any]:
    """The outputs of an operation on known arrays."""
    if inner is not None and len(inner.jaxpr.invars) == len(given):
        return list(jaxpr_as_fun(inner)(*given))
    found = equation.primitive.bind(*given, **equation.params)
    return list(found) if equation.primitive.multiple_results else [found]


def _parameters(name: str, params: Any) -> dict[str, Any]:
    if name == "convert_element_type":
        return {"dtype": params["new_dtype"]}
    return {"exponent": params["y"]} if name == "integer_pow" else {}


def _positive(x: Curve) -> Any:
    return jnp.logical_or(x.log_convex, x.log_concave) | (x.low > 0)


def _not_nan(x: Any, other: float) -> Any:
    """x, or where that is no number, as for 0 times infinity, what is true of any."""
    return jnp.where(jnp.isnan(x), other, x)


def _neg(x: Any) -> Curve:
    x = _as_curve(x)
    return Curve(x.concave, x.convex, False, False, -x.high, -x.low)


def _add(x: Any, y: Any) -> Curve:
    x, y = _as_curve(x), _as_curve(y)
    return Curve(
        jnp.logical_and(x.convex, y.convex),
        jnp.logical_and(x.concave, y.concave),
        # Nothing added to a sum changes nothing.
        (_log_convex_or_0(x) & _log_convex_or_0(y)) & (_positive(x) | _positive(y)),
        False,
        _not_nan(x.low + y.low, -jnp.inf),
        _not_nan(x.high + y.high, jnp.inf),
    )


def _log_convex_or_0(x: Curve) -> Any:
    return x.log_convex | ((x.low == 0) & (x.high == 0))


def _sub(x: Any, y: Any) -> Curve:
    return _add(x, _neg(y))


def _mul(x: Any, y: Any) -> Curve:
    a, b = _as_curve(x), _as_curve(y)
    log_convex, log_concave = jnp.logical_and(a.log_convex, b.log_convex), _log_concave(a) & _log_concave(b)
    convex, concave = log_convex, jnp.zeros_like(log_convex)
    for factor, other in ((x, b), (y, a)):
        if not isinstance(factor, Curve):
            convex = convex | jnp.where(factor >= 0, other.convex, other.concave)
            concave = concave | jnp.where(factor >= 0, other.concave, other.convex)
    ends = [p * q for p in (a.low, a.high) for q in (b.low, b.high)]
    low = functools.reduce(jnp.minimum, [_not_nan(end, -jnp.inf) for end in ends])
    high = functools.reduce(jnp.maximum, [_not_nan(end, jnp.inf) for end in ends])
    return Curve(convex, concave, log_convex, log_concave, low, high)


def _div(x: Any, y: Any) -> Curve:
    return _mul(x, _pow(y, -1.0) if isinstance(y, Curve) else 1 / y)


def _exp(x: Any) -> Curve:
    x = _as_curve(x)
    return Curve(x.convex, False, x.convex, x.concave, jnp.exp(x.low), jnp.exp(x.high))


def _log(x: Any) -> Curve:
    x = _as_curve(x)
    low, high = jnp.log(jnp.maximum(x.low, 0)), jnp.log(jnp.maximum(x.high, 0))
    return Curve(x.log_convex, _log_concave(x), False, False, low, high)


def _pow(x: Any, exponent: Any) -> Curve:
    if isinstance(exponent, Curve):
        return _UNKNOWN
    x = _as_curve(x)
    positive = _positive(x)
    log_convex = jnp.where(exponent >= 0, x.log_convex, _log_concave(x))
    log_concave = jnp.where(exponent >= 0, _log_concave(x), x.log_convex)
    low, high = jnp.power(jnp.maximum(x.low, 0), exponent), jnp.power(jnp.maximum(x.high, 0), exponent)
    return Curve(
        log_convex | ((exponent >= 1) & x.convex & positive),
        (exponent >= 0) & (exponent <= 1) & x.concave & positive,
        log_convex & positive,
        log_concave & positive,
        jnp.where(positive, jnp.minimum(low, high), -jnp.inf),
        jnp.where(positive, jnp.maximum(low, high), jnp.inf),
    )


def _saturation(x: Any, least: Any) -> Curve:
    """1 - exp(least - x), or 0 up to there.

    The second derivative of its logarithm by that of x has the sign of exp(least - x) * (1 - x) - exp(2 * (least - x)),
    which is that of 1 - x - exp(least - x): it falls with x, and is -least at x = least.
    """
    if isinstance(least, Curve):
        return _UNKNOWN
    x = _as_curve(x)
    low, high = (-jnp.expm1(-jnp.maximum(end - least, 0)) for end in (x.low, x.high))
    return Curve(False, x.concave & (x.low >= least), False, _log_concave(x) & (least >= 0), low, high)


def _worn(amount: Any, limit: Any, scale: Any) -> Curve:
    """What an amount is worth beyond a limit: with r = amount / limit, at most the amount, and limit * w(r) for r > 1.

    The derivative of log w by log r, r * y / w with y = exp((1 - r) / scale), is 1 at r = 1 and falls from there: that
    of its logarithm by r is 1/r - 1/scale - y/w, which is negative since y >= 1 + (1 - r) / scale. Hence log w is a
    concave function of log r that grows no faster, and log limit + log w one of log amount and log limit that grows
    with both.
    """
    if isinstance(scale, Curve):
        return _UNKNOWN
    amount, limit = _as_curve(amount), _as_curve(limit)
    known = _log_concave(amount) & _log_concave(limit) & (scale > 0)
    return Curve(False, False, False, known, jnp.where(known, 0.0, -jnp.inf), jnp.where(known, amount.high, jnp.inf))


def _log_concave(x: Curve) -> Any:
    return x.log_concave | (x.concave & _positive(x))


def _max(x: Any, y: Any) -> Curve:
    x, y = _as_curve(x), _as_curve(y)
    convex, log_convex = jnp.logical_and(x.convex, y.convex), jnp.logical_and(x.log_convex, y.log_convex)
    return Curve(convex, False, log_convex, False, jnp.maximum(x.low, y.low), jnp.maximum(x.high, y.high))


def _min(x: Any, y: Any) -> Curve:
    return _neg(_max(_neg(x), _neg(y)))._replace(
        log_concave=jnp.logical_and(_as_curve(x).log_concave, _as_curve(y).log_concave)
    )


def _less(x: Any, y: Any) -> _Comparison:
    x, y = _as_curve(x), _as_curve(y)
    return _Comparison(x.high < y.low, x.low >= y.high)


def _greater(x: Any, y: Any) -> _Comparison:
    return _less(y, x)


def _select(which: Any, *cases: Any) -> Curve:
    if isinstance(which, Curve) or len(cases) != 2:
        return _UNKNOWN
    if not isinstance(which, _Comparison):
        which = _Comparison(which, jnp.logical_not(which))
    if_false, if_true = map(_as_curve, cases)
    chosen = [
        jnp.where(which.true, b, jnp.where(which.false, a, unknown))
        for a, b, unknown in zip(if_false, if_true, _UNKNOWN, strict=True)
    ]
    return Curve(*chosen)


def _convert(x: Any, dtype: Any) -> Any:
    """The same number, unless it is cut down to a whole one or to a yes or no."""
    return x if jnp.issubdtype(dtype, jnp.floating) else _UNKNOWN


_CALLS = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call", "custom_vjp_call")
# Jitted functions of jaxlaws.numerics, whose operations would say nothing.
_OURS = ("_log", "_power", "_saturation", "_worn")

_RULES: dict[Any, Callable[..., Any]] = {
    "add": _add,
    "add_any": _add,
    "convert_element_type": _convert,
    "copy": lambda x: x,
    "div": _div,
    "exp": _exp,
    "gt": _greater,
    "integer_pow": _pow,
    "log": _log,
    "_log": _log,
    "lt": _less,
    "max": _max,
    "min": _min,
    "mul": _mul,
    "neg": _neg,
    "pow": _pow,
    "_power": _pow,
    "_saturation": _saturation,
    "_worn": _worn,
    "select_n": _select,
    "sqrt": lambda x: _pow(x, 0.5),
    "square": lambda x: _pow(x, 2.0),
    "sub": _sub,
}
