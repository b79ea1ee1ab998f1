"""Functions that compute nothing twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

__all__ = ["once"]

CALLS = ("jit", "pjit", "custom_jvp_call")  # of functions, parts of which may have been computed


class _Named(NamedTuple):
    """A value and a name that others have only if they are the same."""

    name: Hashable
    value: Any


def once(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of arrays, in which what would be computed again from the same values is computed once.

    XLA sees to that, too; but in a loop it first moves out of it what does not change, again and again, and no longer
    finds what was the same. And what JAX leaves out need not be compiled. Not for functions to be differentiated by
    rules of their own.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> twice = lambda x: jnp.sin(x) + jnp.sin(x)
        >>> [len(jax.make_jaxpr(f)(1.0).eqns) for f in (twice, once(twice))]
        [3, 2]
    """

    def found(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        numbers = itertools.count()
        results = _run(closed, [_Named(next(numbers), x) for x in jax.tree.leaves(args)], {}, {}, numbers)
        return jax.tree.unflatten(jax.tree.structure(shape), [result.value for result in results])

    return found


def _run(
    closed: ClosedJaxpr,
    args: Sequence[_Named],
    known: dict[Hashable, list[_Named]],
    constants: dict[int, _Named],
    numbers: Any,
) -> list[_Named]:
    """The results of a traced function, with those of equations that were met before."""
    jaxpr = closed.jaxpr
    of = dict(zip(jaxpr.invars, args, strict=True))
    for v, value in zip(jaxpr.constvars, closed.consts, strict=True):
        of[v] = constants.setdefault(id(value), _Named(next(numbers), value))

    def get(v: Any) -> _Named:
        if isinstance(v, Literal):
            aval: Any = v.aval
            value = np.asarray(v.val, aval.dtype)
            return _Named((value.dtype, value.shape, value.tobytes()), value)  # bytes, as NaN is not equal to NaN
        known_value: _Named = of[v]
        return known_value

    for equation in jaxpr.eqns:
        given = [get(v) for v in equation.invars]
        if equation.primitive.name in CALLS:
            inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            of |= zip(equation.outvars, _run(inner, given, known, constants, numbers), strict=True)
            continue
        key: Hashable = (equation.primitive, *(x.name for x in given), *sorted(equation.params.items()))
        try:
            results = None if equation.effects else known.get(key)
        except TypeError:  # parameters that cannot be compared
            key, results = next(numbers), None
        if results is None:
            alone = jaxpr.replace(
                constvars=[],
                eqns=[equation],
                outvars=equation.outvars,
                effects=equation.effects,
                invars=[*dict.fromkeys(v for v in equation.invars if not isinstance(v, Literal))],
            )
            values = jaxpr_as_fun(ClosedJaxpr(alone, []))(*(of[v].value for v in alone.invars))
            results = known[key] = [_Named(next(numbers), value) for value in values]
        of |= zip(equation.outvars, results, strict=True)
    return [get(v) for v in jaxpr.outvars]
