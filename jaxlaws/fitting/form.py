"""A law as a function to be fitted: which numbers are looked for, and what is known of them from the law itself."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxlaws.arguments import setting
from jaxlaws.law import Law, Var, variables
from jaxlaws.programs import QUICK, Program

__all__ = ["WRITTEN_OUT", "Form", "form_of", "linear_fields"]

WRITTEN_OUT = 16  # numbers; derivatives by more of them are computed in one go, which takes longer, but not to compile


@dataclasses.dataclass(frozen=True)
class Form:
    """A law with its coefficients as a sequence of numbers, shared ones first.

    Coefficients are those of one part: parts are outputs that have no coefficients in common, each with one row of
    every vector and matrix of coefficients, or all outputs together.

    Attributes:
        law: The law.
        parts: How many parts the outputs have.
        shapes: Names and shapes of the fields that are fitted, in one part, shared ones first.
        shared: How many of these fields are shared.
        fixed: Names of the fields that are not fitted.
        linear: For each number, whether the law is linear in all of these together.
        bent: Pairs of numbers by which the law has a second derivative; in each, the later one first.
        scaled: For each number, whether it may have any order of magnitude: steps multiply it where it is not negative.
        span: For each number, how wide the range of its starts is, beyond which no step of a search goes.
        objective: What is minimised.
        lower: Least values. These are data, so that forms that differ in them share programs.
        upper: Largest values.
    """

    law: Law
    parts: int
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    shared: int
    fixed: tuple[str, ...]
    linear: tuple[bool, ...]
    bent: tuple[tuple[int, int], ...]
    scaled: tuple[bool, ...]
    span: tuple[float, ...]
    objective: str
    lower: tuple[float, ...] = dataclasses.field(compare=False)
    upper: tuple[float, ...] = dataclasses.field(compare=False)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest values, as programs take them, [number, 1, 1]."""
        low, high = (np.asarray(b, np.float64)[:, None, None] for b in (self.lower, self.upper))
        return low, high

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers each field has."""
        return tuple(math.prod(shape) for _, shape in self.shapes)

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return sum(self.sizes)

    @property
    def shared_count(self) -> int:
        """How many of the numbers, the first ones, are shared."""
        return sum(self.sizes[: self.shared])

    @property
    def names(self) -> tuple[str, ...]:
        """What the numbers are called."""
        return self.names_of(None)

    def names_of(self, part: int | None) -> tuple[str, ...]:
        """What the numbers of one part are called in the fields of all."""
        first = () if part is None else (part,)
        return tuple(
            name + "".join(f"[{i}]" for i in (*first, *index))
            for name, shape in self.shapes
            for index in np.ndindex(*shape)
        )

    def fields(self, numbers: Sequence[Any]) -> dict[str, Any]:
        """The fields that are fitted, from numbers [..., part], in NumPy or in JAX as these are."""
        stack = np.stack if isinstance(numbers[0], np.ndarray) else jnp.stack
        found, start = {}, 0
        for (name, shape), size in zip(self.shapes, self.sizes, strict=True):
            field = stack(numbers[start : start + size], -1)
            field = field if self.parts > 1 else field[..., 0, :]
            found[name] = field.reshape(*field.shape[:-1], *shape)
            start += size
        return found

    def numbers(self, values: Mapping[str, Any]) -> np.ndarray:
        """The numbers [number, ..., part] in fields with leading axes."""
        found = []
        for (name, shape), size in zip(self.shapes, self.sizes, strict=True):
            value = np.asarray(values[name], np.float64)
            value = value if self.parts > 1 else np.expand_dims(value, value.ndim - len(shape))
            found.append(np.moveaxis(value.reshape(*value.shape[: value.ndim - len(shape)], size), -1, 0))
        return np.concatenate(found)

    def at(self, numbers: Sequence[jax.Array], data: Any) -> jax.Array:
        """Predictions [row, block, problem] from numbers [block, problem].

        Blocks are groups, or parts where there are several. Data are the inputs, [row, group, problem, ...], and the
        values of the fixed fields, [group, problem, ...]; in place of all problems may be one that stands for them.
        """
        inputs, fixed = data
        alike = jax.tree.leaves(inputs)[0].shape[2] == 1
        if alike:
            inputs, fixed = jax.tree.map(lambda x: x[:, :, 0], inputs), jax.tree.map(lambda x: x[:, 0], fixed)

        def one(fitted: Mapping[str, Any], fixed: Mapping[str, Any], inputs: Any) -> Any:
            return self.law.fn(self.law.coefs(**fitted, **fixed), inputs)

        over_problems = jax.vmap(one, in_axes=(0, None, None) if alike else (0, 0, 0))
        over_rows = jax.vmap(over_problems, in_axes=(None, None, 0))
        over_groups = jax.vmap(over_rows, in_axes=(0, 0, 1), out_axes=1)
        if self.parts > 1:  # [row, group, problem, output]
            fields = self.fields([x.T[None] for x in numbers])
            found: jax.Array = jnp.moveaxis(over_groups(fields, fixed, inputs)[:, 0], -1, 1)
            return found
        found = over_groups(self.fields([x[..., None] for x in numbers]), fixed, inputs)
        if found.ndim > 3:  # every output is a row
            found = jnp.moveaxis(found, -1, 1).reshape(-1, *found.shape[1:3])
        return found

    def derivatives(
        self, numbers: Sequence[jax.Array], which: Sequence[int], data: Any
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Predictions [row, block, problem], and their derivatives by some of the numbers, with these first."""
        predicted = self.at(numbers, data)
        if len(which) <= WRITTEN_OUT:
            slopes = [self.slope(lambda x: self.at(x, data), i)(numbers) for i in which]
            return predicted, [jnp.broadcast_to(slope, predicted.shape) for slope in slopes]
        x = jnp.stack(numbers)

        def slope(i: jax.Array) -> jax.Array:
            found: jax.Array = jax.jvp(lambda x: self.at(list(x), data), (x,), (jnp.zeros_like(x).at[i].set(1),))[1]
            return found

        return predicted, [*jax.vmap(slope)(jnp.asarray(which))]

    @staticmethod
    def slope(fn: Callable[[Sequence[jax.Array]], jax.Array], i: int) -> Callable[[Sequence[jax.Array]], jax.Array]:
        """The derivative of a function of all numbers by one of them, everywhere at once."""

        def found(x: Sequence[jax.Array]) -> jax.Array:
            def of_one(value: jax.Array) -> jax.Array:
                return fn([*x[:i], value, *x[i + 1 :]])

            slope: jax.Array = jax.jvp(of_one, (x[i],), (jnp.ones_like(x[i]),))[1]
            return slope

        return found


def form_of(
    law: Law,
    sample: Any,
    *,
    several: bool,
    shared: Collection[str],
    fixed: Collection[str],
    bounds: Mapping[str, tuple[float, float]],
    objective: str,
) -> Form:
    """What is to be fitted.

    Args:
        law: The law.
        sample: Inputs of a few rows.
        several: Whether there are several groups, without which nothing need be shared.
        shared: The fields that all groups have in common.
        fixed: The fields that are not fitted.
        bounds: Between which values each field is kept.
        objective: What is minimised.
    """
    fitted = [v for v in variables(law.coefs) if v.name not in fixed]
    if several:
        fitted.sort(key=lambda v: v.name not in shared)
    count = sum(v.name in shared for v in fitted) if several else 0
    core = {v.name: tuple(law.sizes[axis] for axis in v.shape) for v in fitted}
    separate = bool(law.output_shape) and not count and _separate(law, fitted, sample)
    shapes = tuple((v.name, core[v.name][1:] if separate else core[v.name]) for v in fitted)
    linear, bent = linear_fields(law), bent_fields(law)
    scaled = [v.name for v in fitted if _is_size(v, linear, bent)]
    span = {v.name: np.inf if v.name in linear else v.start[1] - v.start[0] for v in fitted}
    of_number = [name for name, shape in shapes for _ in range(math.prod(shape))]
    return Form(
        law=law,
        parts=law.sizes[law.output_shape[0]] if separate else 1,
        shapes=shapes,
        shared=count,
        fixed=tuple(v.name for v in variables(law.coefs) if v.name in fixed),
        linear=tuple(name in linear for name in of_number),
        bent=tuple((i, j) for i in range(len(of_number)) for j in range(i + 1) if (of_number[i], of_number[j]) in bent),
        scaled=tuple(name in scaled for name in of_number),
        span=tuple(span[name] for name in of_number),
        lower=tuple(bounds[name][0] for name in of_number),
        upper=tuple(bounds[name][1] for name in of_number),
        objective=objective,
    )


def _is_size(v: Var, linear: Collection[str], bent: Collection[tuple[str, str]]) -> bool:
    """Whether a coefficient is a weight of something that bends, or may have any order of magnitude."""
    if v.name in linear:
        return any(v.name in pair for pair in bent)
    low, high = sorted(map(abs, v.start))
    return v.start[0] * v.start[1] > 0 and high >= 100 * low


def _separate(law: Law, fitted: Sequence[Var], sample: Any) -> bool:
    """Whether each output depends on one row of every field only, found out by trying."""
    (axis,) = law.output_shape
    if any(not v.shape or v.shape[0] != axis for v in variables(law.coefs)):
        return False
    random = np.random.default_rng(0)
    coefs = law.coefs(
        **{v.name: random.normal(size=tuple(law.sizes[a] for a in v.shape)) for v in variables(law.coefs)}
    )
    with setting(np.dtype(np.float64)):
        return not np.asarray(_mixed(law, tuple(v.name for v in fitted), coefs, sample)).any()


def _mixing(law: Law, names: tuple[str, ...], coefs: Any, sample: Any) -> jax.Array:
    """Where an output depends on a row of these fields that is not its own."""
    other = ~np.eye(law.sizes[law.output_shape[0]], dtype=bool)
    slopes = jax.vmap(jax.jacfwd(law.fn), in_axes=(None, 0))(coefs, sample)
    found = [jnp.any(getattr(slopes, name)[:, other] != 0) for name in names]

    # A derivative can also be lost in rounding, where a law saturates; NaN is not.
    def lost(row: jax.Array) -> jax.Array:
        """The outputs that are NaN where one row of the fields is."""
        values = {name: jnp.moveaxis(getattr(coefs, name), 0, -1) for name in names}
        values = {name: jnp.moveaxis(jnp.where(row, jnp.nan, value), -1, 0) for name, value in values.items()}
        return jnp.isnan(jax.vmap(law.fn, in_axes=(None, 0))(dataclasses.replace(coefs, **values), sample))

    known = jnp.isfinite(jax.vmap(law.fn, in_axes=(None, 0))(coefs, sample))
    return jnp.stack([*found, jnp.any(jax.vmap(lost)(jnp.asarray(~other)) & known & other[:, None])])


_mixed = Program(_mixing, static=2, cpu_options=QUICK)


@functools.cache
def linear_fields(law: Law) -> tuple[str, ...]:
    """The coefficients that the law is linear in, in all of them together, found out from how it is computed.

    Example:
        >>> import jaxlaws as jl
        >>> linear_fields(jl.laws["chinchilla"])
        ('E', 'A', 'B')
    """
    found: list[str] = []
    for v in variables(law.coefs):
        if _linear(law, (*found, v.name)):
            found.append(v.name)
    return tuple(found)


@functools.cache
def bent_fields(law: Law) -> frozenset[tuple[str, str]]:
    """The pairs of coefficients by which the law has a second derivative, each in both orders."""
    names = [v.name for v in variables(law.coefs)]
    pairs = []
    for a in names:
        change = _change(law, (a,))
        pairs += [(a, b) for b in names if _depends(law, change, (b,))]
    return frozenset([*pairs, *((b, a) for a, b in pairs)])


def _linear(law: Law, names: Sequence[str]) -> bool:
    """Whether the derivative in the direction of some coefficients does not depend on these."""
    return not _depends(law, _change(law, names), names)


def _change(law: Law, names: Sequence[str]) -> Any:
    """The derivative of the law in a direction of some coefficients, traced: of direction, coefficients and inputs."""

    def zeros(cls: Any) -> dict[str, Any]:
        return {v.name: np.zeros(tuple(law.sizes[a] for a in v.shape)) for v in variables(cls)}

    def change(direction: Any, coefs: Any, inputs: Any) -> Any:
        def fn(values: Any) -> Any:
            return law.fn(law.coefs(**{**coefs, **values}), law.inputs(**inputs))

        return jax.jvp(fn, ({name: coefs[name] for name in names},), (direction,))[1]

    coefs = zeros(law.coefs)
    return jax.make_jaxpr(change)({name: coefs[name] for name in names}, coefs, zeros(law.inputs))


def _depends(law: Law, change: Any, by: Sequence[str]) -> bool:
    """Whether a derivative that was traced depends on some coefficients."""
    names = sorted(v.name for v in variables(law.coefs))  # as JAX sorts a dict
    given = len(change.jaxpr.invars) - len(names) - len(variables(law.inputs))
    marks = [*[False] * given, *(name in by for name in names), *[False] * len(variables(law.inputs))]
    return any(_dependent(change.jaxpr, marks))


def _dependent(jaxpr: Any, given: Sequence[bool]) -> list[bool]:
    """Which outputs of a traced function depend on the inputs that are marked."""
    marked = {v for v, mark in zip(jaxpr.invars, given, strict=True) if mark}

    def is_marked(v: Any) -> bool:
        return not isinstance(v, Literal) and v in marked

    for equation in jaxpr.eqns:
        marks = [is_marked(v) for v in equation.invars]
        if not any(marks):
            continue
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
        if equation.primitive.name == "scan":
            found = _dependent_scan(inner, marks, equation.params["num_consts"], equation.params["num_carry"])
        elif isinstance(inner, Jaxpr) and len(inner.invars) == len(marks):
            found = _dependent(inner, marks)
        else:
            found = [True] * len(equation.outvars)
        marked |= {v for v, mark in zip(equation.outvars, found, strict=True) if mark}
    return [is_marked(v) for v in jaxpr.outvars]


def _dependent_scan(body: Any, given: Sequence[bool], constants: int, carried: int) -> list[bool]:
    """The same for a loop, in which what one turn hands on is an input of the next one."""
    marks = list(given)
    while True:
        found = _dependent(body, marks)
        after = [*marks]
        for i, mark in enumerate(found[:carried], constants):
            after[i] |= mark
        if after == marks:
            return found
        marks = after
