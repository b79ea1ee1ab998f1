"""Evaluating a law: predictions and derivatives for batches of configurations.

Every verb here does the same three things: it turns what the caller passed into arrays of one floating-point dtype
(`_arguments`, the one door for numbers), writes down what it wants to know about one configuration (`_value`,
`_gradient`, ...), and leaves the batch axes to one compiled function (`_compiled`).

Arguments common to all verbs:
    law: The law.
    group: The name of a group; a record (or dict) of coefficients, possibly with leading axes of their own; or, for
        rows that belong to different groups, an array of integer ids (positions in `law.groups`) or a sequence of
        names, which broadcasts against the inputs.
    inputs: The inputs as a record or dict. Or give each by name or alias: numbers, lists, NumPy, JAX or Arrow arrays
        that broadcast as in NumPy. A vector input has its own axis last.
    weights: For laws with several outputs, the weights that make one number of them; by default their mean.

The dtype of the inputs is kept: float64 arrays give float64 results also where JAX is set to 32 bits. Integers, Python
numbers and lists have no dtype of their own and take that of the others, or JAX's default.

Errors: TypeError for a missing, unknown or non-numeric input, ValueError for a wrong shape, UnknownNameError for an
unknown group, IndexError for a group id out of range. NaN in gives NaN out.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlaws.law import Law, UnknownNameError, Var, variables

__all__ = [
    "elasticity",
    "gradient",
    "hessian",
    "in_range",
    "jacobian",
    "predict",
    "stack",
    "value_and_gradient",
]


def predict(law: Law, group: Any, inputs: Any = None, /, **named: Any) -> jax.Array:
    """The output of a law, for any number of configurations. Usually spelled `law(group, ...)`.

    Args:
        law: The law.
        group: Name of a group, coefficients, or one name or id per row (see the module).
        inputs: Record or dict of inputs.
        **named: Or the inputs by name.

    Returns:
        An array of the broadcast shape of group ids, coefficients and inputs, with the axis of the outputs last for
        laws with several, in the unit that `law.outputs` states.

    Example:
        >>> import numpy as np, jaxlaws as jl
        >>> law = jl.laws["parallel"]
        >>> law("stack", num_params=np.array([1e9, 2e9])[:, None], parallel_size=[1, 2, 4]).shape
        (2, 3)
        >>> print(law(["pile", "stack"], num_params=1e9, parallel_size=8))
        [1.9482... 1.0743...]
    """
    outputs: jax.Array = _call(law, _value, group, inputs, named)
    return outputs


def gradient(law: Law, group: Any, inputs: Any = None, /, *, weights: Any = None, **named: Any) -> Any:
    """Derivative of the output of a law with respect to each input, at every configuration.

    Args:
        law: The law.
        group: Name of a group, coefficients, or one name or id per row (see the module).
        inputs: Record or dict of inputs.
        weights: Weights of the outputs, for laws with several; by default their mean.
        **named: Or the inputs by name.

    Returns:
        A record like the inputs; each field has the batch shape, and its own axis last where it is a vector, in units
        of the output per unit of the input.

    Example:
        >>> import jaxlaws as jl
        >>> g = jl.gradient(jl.laws["parallel"], "pile", num_params=1e9, parallel_size=4)
        >>> print(g.num_params, g.parallel_size)
        -1.3665...e-10 -0.006409...
    """
    return _call(law, _gradient, group, inputs, named, weights)


def value_and_gradient(
    law: Law, group: Any, inputs: Any = None, /, *, weights: Any = None, **named: Any
) -> tuple[jax.Array, Any]:
    """The output of a law and its [`gradient`][jaxlaws.gradient], computed together.

    Args:
        law: The law.
        group: Name of a group, coefficients, or one name or id per row (see the module).
        inputs: Record or dict of inputs.
        weights: Weights of the outputs, for laws with several; by default their mean.
        **named: Or the inputs by name.

    Returns:
        The output, weighted to one number per configuration for laws with several, and the record of derivatives.

    Example:
        >>> import jaxlaws as jl
        >>> loss, g = jl.value_and_gradient(jl.laws["sft"], "('gpt2', 'flan')", sft_data_size=[1e3, 1e4])
        >>> loss.shape, g.sft_data_size.shape
        ((2,), (2,))
    """
    value, derivative = _call(law, _value_and_gradient, group, inputs, named, weights)
    return value, derivative


def jacobian(law: Law, group: Any, inputs: Any = None, /, **named: Any) -> Any:
    """Derivative of every output with respect to every input, at every configuration.

    Args:
        law: The law.
        group: Name of a group, coefficients, or one name or id per row (see the module).
        inputs: Record or dict of inputs.
        **named: Or the inputs by name.

    Returns:
        A record like the inputs; each field has the batch shape, then the axis of the outputs, then its own.

    Example:
        >>> import jaxlaws as jl
        >>> p = [0.3, 0.2, 0.1, 0.2, 0.2]
        >>> jl.jacobian(jl.laws["domain_mixture"], "410M", proportions=p).proportions.shape
        (5, 5)
    """
    return _call(law, _jacobian, group, inputs, named)


def hessian(law: Law, group: Any, inputs: Any = None, /, *, weights: Any = None, **named: Any) -> Any:
    """Second derivatives of the output of a law with respect to its inputs, at every configuration.

    Args:
        law: The law.
        group: Name of a group, coefficients, or one name or id per row (see the module).
        inputs: Record or dict of inputs.
        weights: Weights of the outputs, for laws with several; by default their mean.
        **named: Or the inputs by name.

    Returns:
        A record of records: `h.tokens.params` is the derivative with respect to tokens and params, of the batch shape,
        then the axes of the first and of the second input.

    Example:
        >>> import jaxlaws as jl
        >>> h = jl.hessian(jl.laws["parallel"], "pile", num_params=1e9, parallel_size=4)
        >>> print(h.num_params.parallel_size)
        3.872...e-13
    """
    return _call(law, _hessian, group, inputs, named, weights)


def elasticity(law: Law, group: Any, inputs: Any = None, /, *, weights: Any = None, **named: Any) -> Any:
    """Percent change of the output per percent of each input: d ln(output) / d ln(input).

    Args:
        law: The law.
        group: Name of a group, coefficients, or one name or id per row (see the module).
        inputs: Record or dict of inputs.
        weights: Weights of the outputs, for laws with several; by default their mean.
        **named: Or the inputs by name.

    Returns:
        A record like the inputs, without units.

    Example:
        >>> import jaxlaws as jl
        >>> e = jl.elasticity(jl.laws["sft"], "('gpt2', 'flan')", sft_data_size=1e4)
        >>> print(e.sft_data_size)  # a power law without a constant: minus its exponent
        -0.0903...
    """
    return _call(law, _elasticity, group, inputs, named, weights)


def in_range(law: Law, inputs: Any = None, /, **named: Any) -> Any:
    """Whether each input lies in the range that the coefficients were fitted on.

    Args:
        law: The law.
        inputs: Record or dict of inputs.
        **named: Or the inputs by name.

    Returns:
        A record like the inputs of boolean NumPy arrays, each of the shape of its input (without the own axis of a
        vector). NaN is outside; an input of unknown range is inside everywhere.

    Example:
        >>> import jaxlaws as jl
        >>> jl.in_range(jl.laws["parallel"], num_params=[1e9, 1e12], parallel_size=2).num_params
        array([ True, False])
    """
    given = _by_name(law, inputs, named)

    def inside(v: Var) -> Any:
        value = np.asarray(_number(given[v.name], v.name))
        if v.range is None:
            return np.ones(value.shape[: value.ndim - len(v.shape)], bool)
        # The ends are rounded to the dtype of the values, so that an end read from a float32 column is inside.
        low, high = (np.asarray(end).astype(np.result_type(value, np.float32)) for end in v.range)
        ok = (value >= low) & (value <= high)
        return ok.all(axis=tuple(range(-len(v.shape), 0)))

    return law.inputs(**{v.name: inside(v) for v in variables(law.inputs)})


def stack(records: Iterable[Any]) -> Any:
    """Records of the same class as one, each field with a new leading axis.

    Args:
        records: Coefficients, such as `law.groups.values()`.

    Returns:
        A record of NumPy arrays in float64.

    Example:
        >>> import jaxlaws as jl
        >>> jl.stack(jl.laws["sft"].groups.values()).alpha.shape
        (42,)
    """
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf, np.float64) for leaf in leaves]), *records)


# What is computed for one configuration. `weights` is None or has the shape of the outputs.


def _value(law: Law, coefs: Any, inputs: Any, weights: Any) -> Any:
    return law.fn(coefs, inputs)


def _scalar(law: Law, coefs: Any, inputs: Any, weights: Any) -> Any:
    outputs = law.fn(coefs, inputs)
    return jnp.mean(outputs) if weights is None else jnp.sum(weights * outputs)


_gradient = jax.grad(_scalar, argnums=2)
_value_and_gradient = jax.value_and_grad(_scalar, argnums=2)
_jacobian = jax.jacfwd(_value, argnums=2)
_hessian = jax.hessian(_scalar, argnums=2)


def _elasticity(law: Law, coefs: Any, inputs: Any, weights: Any) -> Any:
    value, derivative = _value_and_gradient(law, coefs, inputs, weights)
    return jax.tree.map(lambda x, g: x * g / value, inputs, derivative)


_VERBS = {"value": _value, "gradient": _gradient, "elasticity": _elasticity}


@functools.cache
def _several(verbs: tuple[str, ...]) -> Callable[..., Any]:
    def point(law: Law, coefs: Any, inputs: Any, weights: Any) -> Any:
        return tuple(_VERBS[verb](law, coefs, inputs, weights) for verb in verbs)

    return point


# From one configuration to a batch.


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(verb: Callable[..., Any], law: Law, coefs: Any, ids: Any, inputs: Any, weights: Any) -> Any:
    if ids is not None:  # rows of several groups: an id out of range, which only a tracer can hold, gives NaN
        coefs = jax.tree.map(lambda leaf: jnp.take(leaf, ids, axis=0, mode="fill"), coefs)
    cores = (_core_ndims(coefs), _core_ndims(inputs), None if weights is None else len(_output_shape(law)))
    return _over_batch(functools.partial(verb, law), (coefs, inputs, weights), cores)


def _core_ndims(values: Any) -> Any:
    return type(values)(**{v.name: len(v.shape) for v in variables(type(values))})


def _output_shape(law: Law) -> tuple[str, ...]:
    """Names of the axes of the output: none for a single number."""
    (output,) = variables(law.outputs)
    return output.shape


def _over_batch(fn: Callable[..., Any], args: Any, core_ndims: Any) -> Any:
    """`fn(*args)` for every point of the broadcast batch axes of `args`, those before the core axes.

    One vmap per batch axis, over the leaves that have it: what depends on one axis of a grid only is computed once per
    point of that axis.
    """
    leaves, tree = jax.tree.flatten(args)
    batches = [leaf.shape[: leaf.ndim - n] for leaf, n in zip(leaves, jax.tree.leaves(core_ndims), strict=True)]
    shape = np.broadcast_shapes(*batches)
    batches = [(1,) * (len(shape) - len(batch)) + batch for batch in batches]
    mapped = [tuple(size == full for size, full in zip(batch, shape, strict=True)) for batch in batches]
    # Axes along which a leaf is constant are dropped; ones added in front were never there.
    leaves = [
        leaf.reshape(tuple(full for full, m in zip(shape, maps, strict=True) if m) + leaf.shape[leaf.ndim - n :])
        for leaf, n, maps in zip(leaves, jax.tree.leaves(core_ndims), mapped, strict=True)
    ]

    def point(*leaves: Any) -> Any:
        return fn(*jax.tree.unflatten(tree, leaves))

    for axis in reversed(range(len(shape))):
        point = jax.vmap(point, in_axes=tuple(0 if maps[axis] else None for maps in mapped))
    return point(*leaves)


# The door: what the caller passed becomes arrays.


def _call(
    law: Law, verb: Callable[..., Any], group: Any, inputs: Any, named: Mapping[str, Any], weights: Any = None
) -> Any:
    arguments, dtype = _arguments(law, group, inputs, named, weights)
    with jax.enable_x64(True) if _needs_x64(dtype) else contextlib.nullcontext():
        return _compiled(verb, law, *arguments)


def _needs_x64(dtype: Any) -> bool:
    return dtype == np.float64 and jax.dtypes.canonicalize_dtype(np.float64) != np.float64


def _arguments(law: Law, group: Any, inputs: Any, named: Mapping[str, Any], weights: Any) -> tuple[Any, Any]:
    """Coefficients, group ids, inputs and weights as arrays of one dtype, and that dtype."""
    given = _by_name(law, inputs, named)
    xs = {v.name: _number(given[v.name], v.name) for v in variables(law.inputs)}
    coefs, ids = _coefficients(law, group)
    cs = {v.name: _number(getattr(coefs, v.name), v.name) for v in variables(type(coefs))}
    ws = None if weights is None else _number(weights, "weights")

    dtype = _dtype(given.values(), xs.values(), cs.values(), ws)
    to = functools.partial(_cast, dtype=dtype)
    arguments = (
        type(coefs)(**{name: to(c) for name, c in cs.items()}),
        ids,
        law.inputs(**{name: to(x) for name, x in xs.items()}),
        None if ws is None else to(ws),
    )
    _check_shapes(law, arguments)
    return arguments, dtype


def _by_name(law: Law, inputs: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs by their proper names."""
    if isinstance(inputs, law.inputs):
        if named:
            raise TypeError(f"{law.name}: give the inputs as a record or by name, not both")
        return {v.name: getattr(inputs, v.name) for v in variables(law.inputs)}
    given = {**(inputs or {}), **named} if inputs is None or isinstance(inputs, Mapping) else None
    if given is None:
        raise TypeError(f"{law.name}: inputs must be a record or a dict, not {type(inputs).__name__}")
    found = {}
    for v in variables(law.inputs):
        names = [name for name in (v.name, *v.aliases) if name in given]
        if not names:
            raise TypeError(f"{law.name}: input {v.name!r} ({v.description}) is missing{_takes(law)}")
        if len(names) > 1:
            raise TypeError(f"{law.name}: {' and '.join(map(repr, names))} are the same input")
        found[v.name] = given.pop(names[0])
    if given:
        raise TypeError(f"{law.name}: unknown input {next(iter(given))!r}{_takes(law)}")
    return found


def _takes(law: Law) -> str:
    return f"; the law takes {', '.join(v.name for v in variables(law.inputs))}"


def _number(value: Any, name: str) -> Any:
    """A NumPy or JAX array of floating-point numbers or integers."""
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    if not (jnp.issubdtype(array.dtype, np.floating) or jnp.issubdtype(array.dtype, np.integer)):
        # Also lists of integers beyond 64 bits, which NumPy leaves as objects.
        if array.dtype == object and all(isinstance(x, (int, float)) for x in np.ravel(array)):
            return array.astype(np.float64)
        raise TypeError(f"{name} must hold numbers, not {array.dtype}")
    return array


def _dtype(given: Iterable[Any], inputs: Iterable[Any], coefs: Iterable[Any], weights: Any) -> Any:
    """The dtype that everything is computed in.

    That of the arrays among the inputs; without any, that of coefficients that are JAX arrays; else JAX's default.
    """
    inputs, coefs = list(inputs), list(coefs)
    own = [x.dtype for raw, x in zip(given, inputs, strict=True) if _has_dtype(raw, x)]
    own = own or [c.dtype for c in coefs if isinstance(c, jax.Array) and _has_dtype(c, c)]
    if not own:
        return jax.dtypes.canonicalize_dtype(float)
    dtype = functools.reduce(jnp.promote_types, own) if len(set(own)) > 1 else own[0]
    if any(isinstance(x, jax.core.Tracer) for x in (*inputs, *coefs, weights)):
        # Inside a transformation JAX's own setting rules.
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return dtype


def _has_dtype(raw: Any, array: Any) -> bool:
    if isinstance(raw, (int, float, list, tuple)) and not isinstance(raw, np.generic):
        return False
    return jnp.issubdtype(array.dtype, np.floating) and not getattr(raw, "weak_type", False)


def _cast(array: Any, dtype: Any) -> Any:
    return array.astype(dtype) if isinstance(array, jax.Array) else array.astype(dtype, copy=False)


def _coefficients(law: Law, group: Any) -> tuple[Any, Any]:
    """The coefficients, and for rows of several groups their ids (the coefficients are then stacked)."""
    if isinstance(group, str):
        if group not in law.groups:
            raise UnknownNameError(f"group of {law.name}", group, law.groups)
        return law.groups[group], None
    if isinstance(group, law.coefs):
        return group, None
    if isinstance(group, Mapping):
        names = {v.name for v in variables(law.coefs)}
        if names != set(group):
            wrong = ", ".join(sorted(names ^ set(group)))
            raise TypeError(f"{law.name}: missing or unknown coefficients: {wrong}")
        return law.coefs(**group), None
    return _stacked(law), group_ids(law, group)


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
            raise UnknownNameError(f"group of {law.name}", error.args[0], law.groups) from None
        return flat.reshape(ids.shape)
    if not jnp.issubdtype(ids.dtype, np.integer):
        raise TypeError(
            f"{law.name}: a group is a name, an id, a sequence of these, or coefficients; not {type(groups).__name__}"
        )
    if not isinstance(ids, jax.core.Tracer):
        concrete = np.asarray(ids)
        wrong = concrete[(concrete < 0) | (concrete >= len(law.groups))].tolist()
        if wrong:
            raise IndexError(f"{law.name}: group id {wrong[0]} is not in 0 to {len(law.groups) - 1}")
    return ids.astype(np.int32)


def _check_shapes(law: Law, arguments: tuple[Any, Any, Any, Any]) -> None:
    """Raise a ValueError that names the field whose shape does not fit."""
    coefs, ids, inputs, weights = arguments
    sizes: dict[str, int] = {}
    batches: dict[str, tuple[int, ...]] = {}

    def check(name: str, axes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        core = shape[len(shape) - len(axes) :]
        if len(core) < len(axes) or any(sizes.setdefault(a, n) != n for a, n in zip(axes, core, strict=True)):
            want = ", ".join(f"{a} = {sizes[a]}" if a in sizes else a for a in axes)
            raise ValueError(f"{law.name}: {name} has shape {shape}; it must end in ({want})")
        batches[name] = shape[: len(shape) - len(axes)]

    for v in variables(type(coefs)):
        shape = getattr(coefs, v.name).shape
        check(v.name, v.shape, shape if ids is None else shape[1:])
    if ids is not None:
        batches["group"] = ids.shape
    for v in variables(law.inputs):
        check(v.name, v.shape, getattr(inputs, v.name).shape)
    if weights is not None:
        if not _output_shape(law):
            raise TypeError(f"{law.name} has one output and takes no weights")
        check("weights", _output_shape(law), weights.shape)
    try:
        np.broadcast_shapes(*batches.values())
    except ValueError:
        text = ", ".join(f"{name} {shape}" for name, shape in batches.items() if shape)
        raise ValueError(f"{law.name}: these shapes do not broadcast: {text}") from None


# Columns and long tables.


def from_columns(law: Law, columns: Sequence[np.ndarray]) -> Any:
    """The record of inputs made of the columns `law.input_columns`, in that order."""
    rest = iter(columns)
    fields = {}
    for v in variables(law.inputs):
        own = [next(rest) for _ in v.column_names(law.sizes)]
        fields[v.name] = np.stack(own, axis=-1) if v.shape else own[0]
    return law.inputs(**fields)


def tabulate(
    law: Law, verbs: tuple[str, ...], group: Any, inputs: Any, count: int, weights: Any = None
) -> tuple[Any, ...]:
    """Several verbs ("value", "gradient", "elasticity") at once, for `count` rows of NumPy columns, block by block.

    `group` is a name, coefficients, or an array of ids with a row each; the results are NumPy arrays.
    """
    ids = group if isinstance(group, np.ndarray) else None

    def call(rows: Any) -> Any:
        ids, inputs = rows
        return _call(law, _several(verbs), group if ids is None else ids, inputs, {}, weights)

    results: tuple[Any, ...] = in_blocks(call, (ids, inputs), count)
    return results


BLOCK = 1 << 17  # rows; small enough that the buffers of a block stay in cache and are reused


def in_blocks(fn: Callable[[Any], Any], rows: Any, count: int) -> Any:
    """`fn(rows)` computed block by block, into NumPy arrays.

    Args:
        fn: Takes arrays with one leading axis of any length, and returns arrays with the same.
        rows: A pytree of NumPy arrays with a leading axis of length `count`.
        count: The number of rows.

    The last block is filled up to a power of two by repeating its last row, so that tables of any length share a few
    compiled functions.
    """
    result = None
    for start in range(0, max(count, 1), BLOCK):
        stop = min(start + BLOCK, count)
        padding = (1 << max(stop - start - 1, 7).bit_length()) - (stop - start) if 0 < stop - start < BLOCK else 0
        out = fn(jax.tree.map(functools.partial(_block, start=start, stop=stop, padding=padding), rows))
        if result is None:
            result = jax.tree.map(lambda o: np.empty((count, *o.shape[1:]), o.dtype), out)
        for whole, part in zip(jax.tree.leaves(result), jax.tree.leaves(out), strict=True):
            whole[start:stop] = np.asarray(part)[: stop - start]
    return result


def _block(array: np.ndarray, start: int, stop: int, padding: int) -> np.ndarray:
    part = array[start:stop]
    return np.concatenate([part, np.repeat(part[-1:], padding, axis=0)]) if padding else part
