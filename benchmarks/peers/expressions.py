"""The laws in exp-log form, spelled out as expressions that numexpr, polars and torch all understand.

Columns are `x0`, `x1`, ... in the order of the inputs. A law has temporaries, which are columns of their own, and one
expression for each column of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from . import Case

FIVE = range(5)


class Expressions(NamedTuple):
    """The temporaries and results of one law and verb, as text."""

    results: list[str]
    temporaries: Mapping[str, str] = MappingProxyType({})


def total(terms):
    return " + ".join(terms)


def power(x, exponent):
    return f"exp(-{exponent} * log({x}))"


SIZE, STREAMS = power("x0", "alpha"), power("x1", "beta")
ABOVE = "K * exp(-alpha * log(x0) - beta * log(x1))"
PASSES = "e * exp(-delta * (log(x1) - log(x2)))"

EXPRESSIONS = {
    "parallel": Expressions([f"c0 + c1 * {SIZE} + c2 * {STREAMS} + c3 * ({SIZE} * {STREAMS})"]),
    "parallel_gradient": Expressions(
        [f"-alpha * {SIZE} * (c1 + c3 * {STREAMS}) / x0", f"-beta * {STREAMS} * (c2 + c3 * {SIZE}) / x1"]
    ),
    "moe": Expressions([f"L_inf + {ABOVE}"]),
    "moe_gradient": Expressions([f"-alpha * {ABOVE} / x0", f"-beta * {ABOVE} / x1"]),
    "sft": Expressions([f"L_inf + A * {SIZE}"]),
    "sft_gradient": Expressions([f"-alpha * A * {SIZE} / x0"]),
    "data_constrained": Expressions(
        [f"d + a * {SIZE} + b * {power('x1', 'beta')} + c * {power('x2', 'gamma')} + {PASSES}"]
    ),
    "data_constrained_gradient": Expressions(
        [
            f"-alpha * a * {SIZE} / x0",
            f"(-beta * b * {power('x1', 'beta')} - delta * {PASSES}) / x1",
            f"(-gamma * c * {power('x2', 'gamma')} + delta * {PASSES}) / x2",
        ]
    ),
    "domain_mixture": Expressions(
        [f"b{i} + " + total(f"w{i}{j} * x{j} + v{i}{j} * l{j}" for j in FIVE) for i in FIVE],
        {f"l{j}": f"log(x{j} + eps)" for j in FIVE},
    ),
    "domain_mixture_gradient": Expressions([f"w{j} + v{j} / (x{j} + eps)" for j in FIVE]),
    "data_mixing": Expressions([f"least{i} + exp(" + total(f"t{i}{j} * x{j}" for j in FIVE) + ")" for i in FIVE]),
    "data_mixing_gradient": Expressions(
        [f"({total(f't{i}{j} * l{i}' for i in FIVE)}) * fifth" for j in FIVE],
        {f"l{i}": "exp(" + total(f"t{i}{j} * x{j}" for j in FIVE) + ")" for i in FIVE},
    ),
}


def numbers(case: Case) -> dict[str, Any]:
    """The coefficients as the scalars that the expressions name."""
    if case.law.name == "data_mixing":
        c, t = case.coefs.values()
        named = {f"least{i}": np.exp(c[i]) for i in FIVE} | {"fifth": case.dtype.type(0.2)}
        return named | {f"t{i}{j}": t[i, j] for i in FIVE for j in FIVE}
    if case.law.name != "domain_mixture":
        return case.coefs
    b, w, v = case.coefs.values()
    named = {f"b{i}": b[i] for i in FIVE} | {"eps": case.dtype.type(1e-6)}
    for name, matrix in (("w", w), ("v", v)):
        named |= {f"{name}{i}{j}": matrix[i, j] for i in FIVE for j in FIVE}
        named |= {f"{name}{j}": matrix[:, j].mean() for j in FIVE}  # the gradient is that of the mean loss
    return named
