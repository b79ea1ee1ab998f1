"""The one door for numbers: what a caller passed to a verb becomes arrays of one floating-point dtype, checked."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlaws.law import Law, UnknownNameError, stack, variables
from jaxlaws.proportions import Normalised, ProportionsWarning
from jaxlaws.warning import warn_caller

__all__ = [
    "Choice",
    "arguments",
    "beyond_setting",
    "broadcast_shape",
    "by_name",
    "check_kind",
    "check_law",
    "check_weights",
    "group_ids",
    "normalised",
    "number",
    "setting",
    "summing_to",
    "unmasked",
]


class Choice(NamedTuple):
    """Coefficients of several groups, stacked, and which of these each row belongs to."""

    coefs: Any
    ids: Any


def arguments(
    law: Law, group: Any, inputs: Any, named: Mapping[str, Any], weights: Any, *, checked: bool = False
) -> tuple[tuple[Any, Any, Any, Any], Any, tuple[int, ...]]:
    """Coefficients, group ids, inputs and weights as arrays of one dtype; that dtype; and their broadcast shape.

    With `checked`, the sums of proportions are what they are.
    """
    given = by_name(law, inputs, named)
    xs = {v.name: number(given[v.name], v.name) for v in variables(law.inputs)}
    named_group = isinstance(group, str)
    coefs, ids = _coefficients(law, group)
    cs = {} if named_group else {v.name: number(getattr(coefs, v.name), v.name) for v in variables(law.coefs)}
    ws = None if weights is None else number(weights, "weights")

    dtype = _dtype([given[name] for name in xs], xs.values(), cs.values(), (ws, ids))
    with setting(dtype):
        arrays = (
            _in_dtype(law, group, dtype) if named_group else law.coefs(**{n: _cast(c, dtype) for n, c in cs.items()}),
            ids,
            law.inputs(**{name: _cast(x, dtype) for name, x in xs.items()}),
            None if ws is None else _cast(ws, dtype),
        )
    coefs, ids, inputs, ws = arrays
    shape = _batch_shape(law, _shapes(coefs), _shape(ids), _shapes(inputs), _shape(ws))
    return (coefs, ids, inputs if checked else normalised(law, inputs), ws), dtype, shape


def beyond_setting(dtype: Any) -> bool:
    """Whether JAX is set to 32 bits and `dtype` is float64, so that it must be switched for the while."""
    return bool(dtype == np.float64 and jax.dtypes.canonicalize_dtype(np.float64) != np.float64)


def setting(dtype: Any) -> contextlib.AbstractContextManager[Any]:
    """JAX set to 64 bits for the while where `dtype` needs that."""
    return jax.enable_x64(True) if beyond_setting(dtype) else contextlib.nullcontext()


def check_law(law: Any) -> None:
    """A TypeError for what is not a law, such as the name of one."""
    check_kind(law, Law, "a law such as jl.laws['parallel']")


def check_kind(value: Any, kind: Any, needed: str) -> None:
    """A TypeError, in one line, for a value of another kind than is needed."""
    if not isinstance(value, kind):
        shown = " ".join(repr(value).split())
        shown = shown if len(shown) <= 60 else type(value).__name__
        raise TypeError(f"{needed} is needed, not {shown}")


def check_weights(law: Law, weights: Any) -> None:
    """A TypeError for weights of a single output, and for none of outputs whose mean means nothing."""
    if weights is not None and not law.output_shape:
        raise TypeError(f"{law.name} has one output and takes no weights")
    if weights is None and law.output_shape == ("output",):
        raise TypeError(
            f"{law.name} has several outputs, of which a mean would mean nothing: {law.output_text}; give weights"
        )


def normalised(law: Law, inputs: Any) -> Any:
    """A record of arrays of floats whose proportions sum to 1; of what JAX traces nothing can be known.

    Raises:
        ValueError: A sum is far off.

    Warns:
        ProportionsWarning: Some rows were divided by their sum.
    """
    for v in variables(law.inputs):
        if v.total is not None:
            values = summing_to(getattr(inputs, v.name), v.total, f"{law.name}: {v.name}")
            inputs = dataclasses.replace(inputs, **{v.name: values})
    return inputs


def summing_to(array: Any, total: float, what: str) -> Any:
    """The same for one array [..., element]."""
    if isinstance(array, jax.core.Tracer) or not getattr(array, "is_fully_addressable", True):
        return array
    values, tally = np.asarray(array), Normalised()
    values = values.astype(np.float64) if values.dtype.kind in "iu" else values
    found = tally.add(values, total, what, lambda i: f" in row {i[0] if len(i) == 1 else i}" if i else "")
    if not tally.rows:
        return array
    warn_caller(tally, ProportionsWarning)
    return jax.device_put(found, array.sharding) if isinstance(array, jax.Array) else found


def by_name(law: Law, inputs: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs by their proper names."""
    check_law(law)
    if isinstance(inputs, law.inputs):
        if named:
            raise TypeError(f"{law.name}: give the inputs as a record or by name, not both")
        return {v.name: getattr(inputs, v.name) for v in variables(law.inputs)}
    given = {**(inputs or {}), **named} if inputs is None or isinstance(inputs, Mapping) else None
    if given is None:
        raise TypeError(f"{law.name}: inputs must be a record or a dict, not {type(inputs).__name__}")
    known = {name: v.name for v in variables(law.inputs) for name in (v.name, *v.aliases)}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else _takes(law)
            raise TypeError(f"{law.name}: unknown input {name!r}{hint}")
        if known[name] in found:
            raise TypeError(f"{law.name}: input {known[name]!r} is given twice, once as {name!r}")
        found[known[name]] = value
    for v in variables(law.inputs):
        if v.name not in found:
            raise TypeError(f"{law.name}: input {v.name!r} ({v.description}) is missing{_takes(law)}")
    return found


def _takes(law: Law) -> str:
    return f"; the law takes {', '.join(v.name for v in variables(law.inputs))}"


def number(value: Any, name: str) -> Any:
    """A NumPy or JAX array of floating-point numbers or integers."""
    try:
        array = value if isinstance(value, jax.Array) else unmasked(value)
    except jax.errors.TracerArrayConversionError:  # a list of tracers
        array = jnp.asarray(value)
    if array.dtype == np.longdouble:
        array = array.astype(np.float64)
    if array.dtype.kind not in "fiu" and not jnp.issubdtype(array.dtype, np.floating):  # JAX has more than NumPy
        # Also lists of integers beyond 64 bits, which NumPy leaves as objects.
        if array.dtype == object and all(isinstance(x, (int, float)) for x in np.ravel(array)):
            return array.astype(np.float64)
        raise TypeError(f"{name} must hold numbers, not {array.dtype}")
    return array


def unmasked(value: Any) -> np.ndarray:
    """A NumPy array, of a masked one with NaN for numbers that are masked, and None for anything else."""
    array = np.asarray(value)
    if isinstance(value, np.ma.MaskedArray) and value.mask.dtype == bool and value.mask.any():
        numeric = np.issubdtype(array.dtype, np.number)
        array = array.astype(np.result_type(array.dtype, np.float32) if numeric else object)
        array[value.mask] = np.nan if numeric else None
    return array


def _dtype(given: Iterable[Any], inputs: Iterable[Any], coefs: Iterable[Any], others: Iterable[Any]) -> Any:
    """The dtype that everything is computed in.

    That of the arrays among the inputs; without any, that of coefficients that are JAX arrays; else JAX's default.
    """
    inputs, coefs = list(inputs), list(coefs)
    own = [x.dtype for raw, x in zip(given, inputs, strict=True) if _has_dtype(raw, x)]
    own = own or [c.dtype for c in coefs if isinstance(c, jax.Array) and _has_dtype(c, c)]
    if not own:
        return jax.dtypes.canonicalize_dtype(float)
    dtype = functools.reduce(jnp.promote_types, own) if len(set(own)) > 1 else own[0]
    if any(isinstance(x, jax.core.Tracer) for x in (*inputs, *coefs, *others)):
        # Inside a transformation JAX's own setting rules.
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return dtype


def _has_dtype(raw: Any, array: Any) -> bool:
    if isinstance(raw, (int, float, list, tuple)) and not isinstance(raw, np.generic):
        return False
    if array.dtype.kind in "iu":
        return False
    return not getattr(raw, "weak_type", False)


def _cast(array: Any, dtype: Any) -> Any:
    if array.dtype == dtype and not getattr(array, "weak_type", False):
        return array  # JAX takes its time to find that out
    return array.astype(dtype) if isinstance(array, jax.Array) else array.astype(dtype, copy=False)


def _coefficients(law: Law, group: Any) -> tuple[Any, Any]:
    """The coefficients, and for rows of several groups their ids (the coefficients are then stacked)."""
    if isinstance(group, str):
        if group not in law.groups:
            raise UnknownNameError.of(f"group of {law.name}", group, law.groups)
        return law.groups[group], None
    if isinstance(group, law.coefs):
        return group, None
    if isinstance(group, Choice):
        return group
    if isinstance(group, Mapping):
        names = {v.name for v in variables(law.coefs)}
        if names != set(group):
            wrong = ", ".join(sorted(names ^ set(group)))
            raise TypeError(f"{law.name}: missing or unknown coefficients: {wrong}")
        return law.coefs(**group), None
    if not law.groups:
        raise TypeError(f"{law.name} has no group; coefficients are needed, such as those of a fit, not {group!r}")
    return _stacked(law), group_ids(law, group)


@functools.cache  # a group is handed to JAX once, not with every call
def _in_dtype(law: Law, group: str, dtype: Any) -> Any:
    coefs = law.groups[group]
    with jax.ensure_compile_time_eval():
        # Converted by NumPy, which compiles nothing.
        values = {v.name: np.asarray(getattr(coefs, v.name), dtype) for v in variables(law.coefs)}
        return law.coefs(**jax.device_put(values))  # for which `jnp.asarray` would compile a program


@functools.cache
def _stacked(law: Law) -> Any:
    return stack(law.groups.values())


def group_ids(law: Law, groups: Any) -> Any:
    """Positions in `law.groups`, as int32, of an array of ids or of a sequence of names; checked."""
    if isinstance(groups, Sequence) and not isinstance(groups, str):
        text = any(isinstance(g, str) for g in groups)
        groups = np.asarray(groups, dtype=object if text else None if len(groups) else np.int32)
    ids = groups if isinstance(groups, jax.Array) else np.asarray(groups)
    if ids.dtype.kind in "OUT":  # names
        positions = {name: i for i, name in enumerate(law.groups)}
        try:
            flat = np.fromiter((positions[name] for name in ids.ravel().tolist()), np.int32, ids.size)
        except KeyError as error:
            raise UnknownNameError.of(f"group of {law.name}", error.args[0], law.groups) from None
        return flat.reshape(ids.shape)
    if not jnp.issubdtype(ids.dtype, np.integer):
        raise TypeError(
            f"{law.name}: a group is a name, an id, a sequence of these, or coefficients; not {type(groups).__name__}"
        )
    if not isinstance(ids, jax.core.Tracer):
        concrete = np.asarray(ids)
        unsigned = concrete.view(concrete.dtype.str.replace("i", "u"))  # ids below 0 are large there: one look at each
        if concrete.size and unsigned.max() >= len(law.groups):
            wrong = concrete[(concrete < 0) | (concrete >= len(law.groups))].flat[0]
            raise IndexError(f"{law.name}: group id {wrong} is not in 0 to {len(law.groups) - 1}")
    return ids if ids.dtype == np.int32 else ids.astype(np.int32)


def _shape(array: Any) -> tuple[int, ...] | None:
    return None if array is None else array.shape


def _shapes(values: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(getattr(values, v.name).shape for v in variables(type(values)))


@functools.lru_cache(maxsize=1024)  # most calls have shapes that were seen before
def _batch_shape(law: Law, coefs: Any, ids: Any, inputs: Any, weights: Any) -> tuple[int, ...]:
    """The broadcast shape of the batch axes, or a ValueError that names the field whose shape does not fit."""
    sizes: dict[str, int] = {}
    batches: dict[str, tuple[int, ...]] = {}

    def check(name: str, axes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        core = shape[len(shape) - len(axes) :]
        if len(core) < len(axes) or any(sizes.setdefault(a, n) != n for a, n in zip(axes, core, strict=True)):
            want = ", ".join(f"{a} = {sizes[a]}" if a in sizes else a for a in axes)
            raise ValueError(f"{law.name}: {name} has shape {shape}; it must end in ({want})")
        batches[name] = shape[: len(shape) - len(axes)]

    for v, shape in zip(variables(law.coefs), coefs, strict=True):
        check(v.name, v.shape, shape if ids is None else shape[1:])
    if ids is not None:
        batches["group"] = ids
    for v, shape in zip(variables(law.inputs), inputs, strict=True):
        check(v.name, v.shape, shape)
    if weights is not None:
        check_weights(law, weights)
        check("weights", law.output_shape, weights)
    return broadcast_shape(law, batches)


def broadcast_shape(law: Law, batches: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that named shapes broadcast to, or a ValueError that names those that do not fit."""
    try:
        return jnp.broadcast_shapes(*batches.values())
    except ValueError:
        text = ", ".join(f"{name} {shape}" for name, shape in batches.items() if shape)
        raise ValueError(f"{law.name}: these shapes do not broadcast: {text}") from None
