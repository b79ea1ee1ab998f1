"""Evaluating a law: predictions and derivatives for batches of configurations.

Every verb here does the same three things: it turns what the caller passed into arrays of one floating-point dtype
(`arguments`, the one door for numbers), writes down what it wants to know about one configuration (`_value`,
`_gradient`, ...), and leaves the batch axes to one compiled function (`_batch`).

Arguments common to all verbs:
    law: The law.
    group: The name of a group; a record (or dict) of coefficients, possibly with leading axes of their own; or, for
        rows that belong to different groups, an array of integer ids (positions in `law.groups`) or a sequence of
        names, which broadcasts against the inputs.
    inputs: The inputs as a record or dict. Or give each by name or alias: numbers, lists, NumPy, JAX or Arrow arrays
        that broadcast as in NumPy. A vector input has its own axis last.
    weights: For laws with several outputs, the weights that make one number of them; by default their mean.

The dtype of the inputs is kept, and float64 arrays give float64 results whatever JAX is set to: JAX arrays where it is
set to 64 bits, and read-only NumPy arrays where it is set to 32 and has no float64 arrays of its own. Integers, Python
numbers and lists have no dtype of their own and take that of the others, or JAX's default.

Arrays may be sharded over a mesh of devices, along axes of type Explicit or Auto; results are then sharded like them.

Errors: TypeError for a missing, unknown or non-numeric input, ValueError for a wrong shape, UnknownNameError for an
unknown group, IndexError for a group id out of range. NaN in gives NaN out, unless the law replaces it by a floor.
Proportions that sum to 1, or to 100, within 1 % are divided by their sum, with a ProportionsWarning; with another sum
they are a ValueError. What JAX traces is taken as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from jaxlaws.arguments import (
    Choice,
    arguments,
    beyond_setting,
    by_name,
    check_weights,
    group_ids,
    normalised,
    number,
    setting,
)
from jaxlaws.columns import ALIGNMENT, BLOCK, BLOCK_BYTES, in_blocks
from jaxlaws.law import Law, Var, variables
from jaxlaws.numerics import keep_powers, matvec
from jaxlaws.programs import LONG_VECTORS, Program, known, one_cpu, padded, roomy
from jaxlaws.ranges import beyond, by_input, ranges_for
from jaxlaws.sharding import with_auto_axes

__all__ = [
    "elasticity",
    "gradient",
    "hessian",
    "in_range",
    "jacobian",
    "predict",
    "tabulate",
    "value_and_gradient",
]


def predict(
    law: Law, group: Any, inputs: Any = None, /, *, out: jax.Array | np.ndarray | None = None, **named: Any
) -> jax.Array | np.ndarray:
    """The output of a law, for any number of configurations. Usually spelled `law(group, ...)`.

    Args:
        law: The law.
        group: Name of a group, coefficients, or one name or id per row (see the module).
        inputs: Record or dict of inputs.
        out: An array of the shape and dtype of the result that is no longer needed, for large batches again and again:
            to come by fresh memory can take longer than the work. A NumPy array is written to and returned. A JAX
            array, such as the last result, is given up, and its memory becomes that of the result: faster still.
        **named: Or the inputs by name.

    Returns:
        An array of the broadcast shape of group ids, coefficients and inputs, with the axis of the outputs
        last for laws with several, in the unit that `law.outputs` states.

    Example:
        >>> import numpy as np, jaxlaws as jl
        >>> law = jl.laws["parallel"]
        >>> law("stack", num_params=np.array([1e9, 2e9])[:, None], parallel_size=[1, 2, 4]).shape
        (2, 3)
        >>> print(law(["pile", "stack"], num_params=1e9, parallel_size=8))
        [1.9482... 1.0743...]
    """
    outputs: jax.Array | np.ndarray = _call(law, _value, group, inputs, named, out=out)
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
) -> tuple[jax.Array | np.ndarray, Any]:
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
        then the axes of the first and of the second input. It is computed in float64 and rounded to the dtype of the
        inputs. What is too small for that is NaN, and not 0: in float32, below 1.2e-38; give float64 inputs then.
        (`jax.hessian` of a call of the law computes in the dtype of the inputs, where parts of it can underflow.)

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


def in_range(law: Law, inputs: Any = None, /, *, group: Any = None, **named: Any) -> Any:
    """Whether each input lies in the range that the coefficients were fitted on.

    Args:
        law: The law.
        inputs: Record or dict of inputs.
        group: Name of a group, or one name or id per row, whose runs are meant; by default those of the law.
        **named: Or the inputs by name.

    Returns:
        A record like the inputs of boolean NumPy arrays, each of the shape of its input (without the own axis of a
        vector), and of the groups where these differ. Where a ratio of two inputs is known, such as tokens per
        parameter, both are outside if it is. NaN is outside; an input of unknown range is inside everywhere.

    Example:
        >>> import jaxlaws as jl
        >>> jl.in_range(jl.laws["parallel"], num_params=[1e9, 1e12], parallel_size=2).num_params
        array([ True, False])
        >>> law = jl.laws["chinchilla"]
        >>> jl.in_range(law, group="sardana2024", params=[1e9, 1e9], tokens=[5e9, 5e10]).tokens
        array([False,  True])
    """
    given = by_name(law, inputs, named)

    def floats(v: Var) -> np.ndarray:
        value = np.asarray(number(given[v.name], v.name))
        return value.astype(np.result_type(value, np.float32), copy=False)

    ids = None if group is None or isinstance(group, str) else group_ids(law, group)
    x = normalised(law, law.inputs(**{v.name: floats(v) for v in variables(law.inputs)}))
    outside = by_input(law, beyond(ranges_for(law, group, ids), x), x)

    def inside(v: Var) -> Any:
        return ~np.asarray(getattr(outside, v.name)).any(axis=tuple(range(-len(v.shape), 0)))

    return law.inputs(**{v.name: inside(v) for v in variables(law.inputs)})


# What is computed for one configuration. `weights` is None or has the shape of the outputs.


def _value(law: Law, coefs: Any, inputs: Any, weights: Any) -> Any:
    return law.fn(coefs, inputs)


def _scalar(law: Law, coefs: Any, inputs: Any, weights: Any) -> Any:
    outputs = law.fn(coefs, inputs)
    if not law.output_shape:
        return outputs
    check_weights(law, weights)
    if weights is None:
        weights = jnp.full(outputs.shape, 1 / outputs.size, outputs.dtype)
    return matvec((weights[None], outputs))[0]


# Functions with names of their own, by which kept programs are found again.


def _gradient(law: Law, coefs: Any, inputs: Any, weights: Any) -> Any:
    return jax.grad(_scalar, argnums=2)(law, coefs, inputs, weights)


def _value_and_gradient(law: Law, coefs: Any, inputs: Any, weights: Any) -> Any:
    return jax.value_and_grad(_scalar, argnums=2)(law, coefs, inputs, weights)


def _jacobian(law: Law, coefs: Any, inputs: Any, weights: Any) -> Any:
    return jax.jacfwd(_value, argnums=2)(law, coefs, inputs, weights)


def _hessian(law: Law, coefs: Any, inputs: Any, weights: Any) -> Any:
    leaves, tree = jax.tree.flatten((coefs, inputs, weights))

    def second(*leaves: Any) -> Any:
        return jax.hessian(_scalar, argnums=2)(law, *jax.tree.unflatten(tree, leaves))

    # In float32 a part of it such as tokens**-3 underflows where all of it does not.
    return second(*leaves) if leaves[0].dtype == np.float64 else _in_float64(second)(*leaves)


def _elasticity(law: Law, coefs: Any, inputs: Any, weights: Any) -> Any:
    value, derivative = _value_and_gradient(law, coefs, inputs, weights)
    return jax.tree.map(lambda x, g: x * g / value, inputs, derivative)


def _in_float64(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays that is computed in float64, and then rounded to their dtype, whatever JAX is set to."""

    @jax.custom_jvp
    def computed(*xs: jax.Array) -> Any:
        with jax.enable_x64(True):
            found = fn(*[x.astype(np.float64) for x in xs])
            return jax.tree.map(lambda leaf: _rounded(leaf, xs[0].dtype), found)

    @functools.partial(computed.defjvp, symbolic_zeros=True)
    def change(primals: Any, tangents: Any) -> Any:  # which JAX asks for where it is set to 32 bits again
        moved = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, SymbolicZero)]
        slopes = _in_float64(lambda *xs: [jax.jacfwd(fn, i)(*xs) for i in moved])(*primals)

        def along(*slopes: jax.Array) -> Any:
            parts = zip(slopes, [tangents[i] for i in moved], strict=True)
            return sum(jnp.tensordot(slope, tangent, tangent.ndim, precision="highest") for slope, tangent in parts)

        return computed(*primals), jax.tree.map(along, *slopes)

    return computed


def _rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """Numbers in another dtype; those that are too small for it are NaN, and not 0."""
    lost = (x != 0) & (jnp.abs(x) < float(jnp.finfo(dtype).tiny))  # type: ignore[no-untyped-call]
    return jnp.where(lost, jnp.nan, x.astype(dtype))


# From one configuration to a batch.


def _batch(verb: Callable[..., Any], law: Law, coefs: Any, ids: Any, inputs: Any, weights: Any) -> Any:
    arrays = coefs, ids, inputs, weights
    return with_auto_axes(functools.partial(_points, verb, law), arrays, core_ndims_of(arrays))


def _points(verb: Callable[..., Any], law: Law, coefs: Any, ids: Any, inputs: Any, weights: Any) -> Any:
    if ids is not None:  # rows of several groups: an id out of range, which only a tracer can hold, gives NaN
        count = jax.tree.leaves(coefs)[0].shape[0]
        ids = jnp.where(ids < 0, count, ids)  # and is not counted from the end
        coefs = jax.tree.map(lambda leaf: jnp.take(leaf, ids, axis=0, mode="fill"), coefs)
    cores = (_core_ndims(coefs), _core_ndims(inputs), None if weights is None else len(law.output_shape))
    return _over_batch(functools.partial(verb, law), (coefs, inputs, weights), cores)


_compiled = jax.jit(_batch, static_argnums=(0, 1))
# With options for the compiler, which JAX allows only where no transformation is around the call.
_outermost = Program(_batch, static=2, cpu_options=LONG_VECTORS, checked=True)


@functools.cache
def _donated(backend: str) -> Any:
    """A compiled `_batch` whose result takes the memory of an array that comes as the last argument."""
    options = known(LONG_VECTORS) if backend == "cpu" else None
    return jax.jit(_into, static_argnums=(0, 1), donate_argnums=6, keep_unused=True, compiler_options=options)


def _into(verb: Callable[..., Any], law: Law, coefs: Any, ids: Any, inputs: Any, weights: Any, out: Any) -> Any:
    return _batch(verb, law, coefs, ids, inputs, weights)


def lower(law: Law, coefs: Any, inputs: Any) -> jax.stages.Lowered:
    """The prediction for these arrays, ready to be compiled to a function of `coefs, None, inputs, None`."""
    lowered: jax.stages.Lowered = _outermost.jitted.lower(_value, law, coefs, None, inputs, None)
    return lowered


def _core_ndims(values: Any) -> Any:
    return type(values)(**{v.name: len(v.shape) for v in variables(type(values))})


def _over_batch(fn: Callable[..., Any], args: Any, core_ndims: Any) -> Any:
    """`fn(*args)` for every point of the broadcast batch axes of `args`, those before the core axes.

    One vmap per batch axis, over the leaves that have it: what depends on one axis of a grid only is computed once per
    point of that axis.
    """
    leaves, tree = jax.tree.flatten(args)
    batches = [leaf.shape[: leaf.ndim - n] for leaf, n in zip(leaves, jax.tree.leaves(core_ndims), strict=True)]
    shape = jnp.broadcast_shapes(*batches)
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
    grid = any(len(set(maps)) > 1 for maps in mapped)
    with keep_powers() if grid else contextlib.nullcontext():
        return point(*leaves)


def _call(
    law: Law,
    verb: Callable[..., Any],
    group: Any,
    inputs: Any,
    named: Mapping[str, Any],
    weights: Any = None,
    out: jax.Array | np.ndarray | None = None,
    checked: bool = False,
) -> Any:
    arrays, dtype, shape = arguments(law, group, inputs, named, weights, checked=checked)
    law = law.original or law  # which knows the programs
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arrays)):
        if out is not None:
            raise TypeError(f"{law.name}: out= cannot be written to inside a transformation of JAX")
        return _compiled(verb, law, *arrays)
    switched = beyond_setting(dtype)
    _check_out(law, out, shape, dtype)
    # Numbers that do not depend on a transformation around this call are computed outside of it: by programs, which
    # know of none, and where JAX is told so.
    with setting(dtype):
        found = _computed(law, verb, arrays, shape, out)
        if found is out and out is not None:
            return out
        with jax.ensure_compile_time_eval():
            # JAX at 32 bits cannot go on with a float64 array; NumPy can.
            return jax.tree.map(_read_only if switched else _owned_by_jax, found)


def _computed(law: Law, verb: Callable[..., Any], arrays: Any, shape: tuple[int, ...], out: Any) -> Any:
    if isinstance(out, jax.Array):
        with jax.ensure_compile_time_eval():
            return _donated(jax.default_backend())(verb, law, *arrays, out)
    # Inputs are not overwritten before all is computed.
    apart = out is not None and any(
        isinstance(x, np.ndarray) and np.may_share_memory(x, out) for x in jax.tree.leaves(arrays)
    )
    found = _in_batches(verb, law, arrays, shape, None if apart else out)
    if out is not None and found is not out:
        out[...] = found
    return found if out is None else out


def _read_only(array: Any) -> np.ndarray:
    found: np.ndarray = np.asarray(array)
    found.flags.writeable = False
    return found


def _owned_by_jax(array: Any) -> jax.Array:
    if isinstance(array, jax.Array):
        return array
    found: jax.Array
    if array.flags.writeable:
        found = jax.device_put(array, may_alias=True)
        return found
    # A view of the results of a batch that was filled up, which are let go: JAX copies what is not aligned into memory
    # of its own, without a program for each length.
    memory = np.empty(array.nbytes + 2 * ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT + array.itemsize
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    found = jax.device_put(copy)
    return found


def _check_out(law: Law, out: Any, shape: tuple[int, ...], dtype: Any) -> None:
    if out is None:
        return
    shape = (*shape, *(law.sizes[axis] for axis in law.output_shape))
    if not isinstance(out, (np.ndarray, jax.Array)) or isinstance(out, jax.core.Tracer):
        raise TypeError(f"{law.name}: out must be an array of NumPy or JAX, not {type(out).__name__}")
    if isinstance(out, jax.Array) and out.is_deleted():
        raise ValueError(f"{law.name}: out was given up already; give the array that came of it")
    writable = isinstance(out, jax.Array) or out.flags.writeable
    if out.shape != shape or out.dtype != dtype or not writable:
        have = f"a {'' if writable else 'read-only '}{out.dtype} array of shape {out.shape}"
        raise ValueError(f"{law.name}: out must be a writable {dtype} array of shape {shape}, not {have}")


WHOLE_BYTES = 31 << 20  # of results; more, or as much of temporaries, is fresh memory in each call, which costs more
MIN_BLOCK = 64  # along the first axis of a grid: powers of the other axes are computed for each block
# From so many rows in batches of the same length on, a program for just that length pays; to fill up a batch costs as
# much as many rows.
OWN_PROGRAM, FILLING = 1 << 24, 1 << 14


SIZES = (8, 32, 128, 512, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14)  # rows, whose calls mostly wait for Python


def _size(rows: int) -> int:
    """The number of rows that a batch is padded to."""
    return next((size for size in SIZES if rows <= size), roomy(rows))


class _Layout(NamedTuple):
    """How batches of the same shapes are computed.

    Attributes:
        cut: Which arrays have the first axis of the batch; the others are the same for all of it.
        padded: The number of rows that a batch without further axes is padded to.
        block: The number of rows of a block, or 0 where all are computed at once.
        calls: Counts the calls.
    """

    cut: tuple[bool, ...]
    padded: int
    block: int
    calls: Iterator[int]


def _in_batches(verb: Callable[..., Any], law: Law, arrays: Any, shape: tuple[int, ...], out: np.ndarray | None) -> Any:
    """`verb` for all configurations; on a CPU, padded to one of a few sizes, or if they are many block by block.

    Blocks are cut along the first axis, and their results written into `out` or new NumPy arrays.
    """
    run = functools.partial(_outermost, verb, law)
    if not shape or not shape[0] or not one_cpu():
        return run(*arrays)
    leaves, tree = jax.tree.flatten(arrays)
    dtype = leaves[-1].dtype
    layout = _layout(verb, law, tree, tuple([leaf.shape for leaf in leaves]), dtype, shape)
    often = next(layout.calls) * (shape[0] + FILLING) >= OWN_PROGRAM
    if not layout.block and (often or layout.padded == shape[0]):
        return run(*arrays)

    def computed(rows: Sequence[np.ndarray]) -> Any:
        parts = iter(rows)
        given = [next(parts) if cut else leaf for leaf, cut in zip(leaves, layout.cut, strict=True)]
        return run(*jax.tree.unflatten(tree, given))

    whole = [leaf for leaf, cut in zip(leaves, layout.cut, strict=True) if cut]
    rows = list(map(np.asarray, whole))
    if layout.block:
        return in_blocks(computed, rows, shape[0], layout.block, out)
    rows = [padded(each, layout.padded) for each in rows]
    if any(isinstance(leaf, jax.Array) for leaf in whole):
        with jax.ensure_compile_time_eval():
            rows = jax.device_put(rows)  # as JAX may be told to refuse arrays of NumPy
    found = computed(rows)
    return jax.tree.map(lambda each: np.asarray(each)[: shape[0]], found)


@functools.cache
def _settle_memory() -> None:
    """Let the C library see a large array come and go.

    It returns freed memory to the system and asks for it again with each call, at up to twice the cost of the call,
    until it has seen one.
    """
    np.empty(31 << 20, np.uint8)


@functools.lru_cache(maxsize=4096)  # most calls have shapes that were seen before
def _layout(verb: Callable[..., Any], law: Law, tree: Any, shapes: Any, dtype: Any, shape: tuple[int, ...]) -> _Layout:
    _settle_memory()
    arrays = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(each, dtype) for each in shapes])
    cut = tuple(
        len(each) - core == len(shape) and each[0] == shape[0]
        for each, core in zip(shapes, jax.tree.leaves(core_ndims_of(arrays)), strict=True)
    )
    size = _size(shape[0]) if len(shape) == 1 else shape[0]
    return _Layout(cut, size, _block(verb, law, arrays, shape), itertools.count(1))


def _block(verb: Callable[..., Any], law: Law, arrays: Any, shape: tuple[int, ...]) -> int:
    """The number of rows of a block, or 0 where all are computed at once."""
    size = math.prod(shape) * _point_bytes(arrays)
    if shape[0] <= MIN_BLOCK or size <= WHOLE_BYTES // 16:  # only second derivatives are ever so much more than inputs
        return 0
    results = math.prod(shape) * _result_bytes(verb, law, *_per_point(arrays))
    length = max(BLOCK_BYTES * shape[0] // max(size, results), MIN_BLOCK)
    return 0 if results <= WHOLE_BYTES or shape[0] <= length else 1 << length.bit_length() - 1


def _point_bytes(arrays: Any) -> int:
    """The bytes of the inputs of one configuration."""
    _, _, inputs, _ = arrays
    return sum(
        math.prod(leaf.shape[leaf.ndim - len(v.shape) :]) * leaf.dtype.itemsize
        for v, leaf in zip(variables(type(inputs)), jax.tree.leaves(inputs), strict=True)
    )


def _per_point(arrays: Any) -> tuple[Any, tuple[tuple[int, ...], ...], Any]:
    """The structure, shapes and dtype of coefficients, inputs and weights of one configuration."""
    coefs, _, inputs, weights = arrays
    leaves, tree = jax.tree.flatten((coefs, inputs, weights))
    cores = jax.tree.leaves((_core_ndims(coefs), _core_ndims(inputs), None if weights is None else 1))
    shapes = tuple(leaf.shape[leaf.ndim - core :] for leaf, core in zip(leaves, cores, strict=True))
    return tree, shapes, leaves[-1].dtype


@functools.lru_cache(maxsize=1024)
def _result_bytes(verb: Callable[..., Any], law: Law, tree: Any, shapes: Any, dtype: Any) -> int:
    """The bytes of the results for one configuration."""
    struct: Callable[..., Any] = jax.ShapeDtypeStruct
    structs = jax.tree.unflatten(tree, [struct(shape, dtype) for shape in shapes])
    results = jax.tree.leaves(jax.eval_shape(functools.partial(verb, law), *structs))
    return sum(result.size * result.dtype.itemsize for result in results)


def core_ndims_of(arrays: Any) -> Any:
    coefs, ids, inputs, weights = arrays
    stacked = 0 if ids is None else 1  # the axis of the groups, which is not one of the batch
    return (
        jax.tree.map(lambda n: n + stacked, _core_ndims(coefs)),
        None if ids is None else 0,
        _core_ndims(inputs),
        None if weights is None else 1,
    )


# Several verbs at once, for the columns of a table.

_VERBS = {"value": _value, "gradient": _gradient, "elasticity": _elasticity}


@dataclasses.dataclass(frozen=True)
class _Several:
    """These verbs at once."""

    verbs: tuple[str, ...]

    def __call__(self, law: Law, coefs: Any, inputs: Any, weights: Any) -> Any:
        return tuple(_VERBS[verb](law, coefs, inputs, weights) for verb in self.verbs)


def tabulate(
    law: Law, verbs: tuple[str, ...], group: Any, inputs: Any, count: int, weights: Any = None
) -> tuple[Any, ...]:
    """Several verbs ("value", "gradient", "elasticity") at once, for `count` rows of NumPy columns, block by block.

    `group` is a name, coefficients, a `Choice`, or an array of ids with a row each; the results are NumPy arrays. Sums
    of proportions are what they are: tables check them, and the list-of-dicts interface does as its source.
    """
    ids = group if isinstance(group, np.ndarray) else group.ids if isinstance(group, Choice) else None

    def call(rows: Any) -> Any:
        ids, inputs = rows
        chosen = group if ids is None else group._replace(ids=ids) if isinstance(group, Choice) else ids
        return _call(law, _Several(verbs), chosen, inputs, {}, weights, checked=True)

    results: tuple[Any, ...] = in_blocks(call, (ids, inputs), count, BLOCK)
    return results
