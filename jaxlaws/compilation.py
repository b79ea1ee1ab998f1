"""Laws compiled ahead of time, for services and for programs without this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxlaws.arguments import arguments, beyond_setting, by_name, check_law, normalised, number, setting
from jaxlaws.evaluation import lower
from jaxlaws.law import Law, variables

__all__ = ["compile", "export"]


def compile(
    law: Law, group: Any, shape: int | tuple[int, ...] = (), dtype: Any = "float32"
) -> Callable[..., jax.Array | np.ndarray]:
    """A law compiled now for one batch shape, so that no later call has to wait for the compiler.

    Args:
        law: The law.
        group: The name of a group, or coefficients.
        shape: The batch shape that predictions are wanted for; by default one configuration.
        dtype: "float32" or "float64": that of the inputs and of the predictions.

    Returns:
        A function of the inputs, as a record, a dict or by name. They are converted to the dtype and broadcast to the
        shape; what does not fit is a ValueError or TypeError. It predicts exactly as the law does.

    Example:
        >>> import jaxlaws as jl
        >>> predict = jl.compile(jl.laws["parallel"], "pile", shape=3)
        >>> print(predict(num_params=1e9, parallel_size=[1, 2, 4]))
        [2.0149... 1.9845... 1.9631...]
    """
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    dtype = _dtype(dtype)
    check_law(law)
    shapes = {v.name: (*shape, *(law.sizes[axis] for axis in v.shape)) for v in variables(law.inputs)}
    with setting(dtype):
        example = {name: np.ones(full, dtype) for name, full in shapes.items()}
        (coefs, ids, inputs, _), _, _ = arguments(law, group, example, {}, None, checked=True)
        if ids is not None:
            raise TypeError(f"{law.name}: rows of several groups cannot be compiled; give a group or coefficients")
        compiled = lower(law, coefs, inputs).compile()

    def predict(inputs: Any = None, /, **named: Any) -> jax.Array | np.ndarray:
        """Predict with the compiled law."""
        given = by_name(law, inputs, named)
        arrays = {}
        for name, full in shapes.items():
            array = number(given[name], name)
            try:
                arrays[name] = np.broadcast_to(np.asarray(array, dtype), full)
            except ValueError:
                raise ValueError(f"{law.name}: {name} has shape {array.shape}; compiled for {full}") from None
        with setting(dtype):
            found: jax.Array = compiled(coefs, None, normalised(law, law.inputs(**arrays)), None)
        return np.asarray(found) if beyond_setting(dtype) else found

    return predict


def export(
    law: Law, group: Any, shape: str = "n", dtype: Any = "float32", platforms: Sequence[str] | None = None
) -> jax.export.Exported:
    """A law as a program in StableHLO that runs wherever JAX does, with batches of any size and without this package.

    Args:
        law: The law.
        group: The name of a group, or coefficients; they become part of the program.
        shape: The batch shape, with letters for sizes that are not known yet, as in `"n"` or `"n, 8"`.
        dtype: "float32", or with JAX set to 64 bits "float64": that of the inputs and of the predictions.
        platforms: Where it will run, such as `["cpu", "cuda", "tpu"]`; by default what JAX runs on here.

    Returns:
        A [`jax.export.Exported`](https://docs.jax.dev/en/latest/jax.export.html). Its argument is a dict of the inputs.
        To make bytes of it, JAX needs the package flatbuffers: `pip install 'jaxlaws[export]'`.

    Example:
        >>> import jax, numpy as np, jaxlaws as jl
        >>> data = jl.export(jl.laws["parallel"], "pile").serialize(vjp_order=1)  # bytes, to keep in a file
        >>> law = jax.export.deserialize(data)
        >>> x = {"num_params": np.full(3, 1e9, np.float32), "parallel_size": np.array([1, 2, 4], np.float32)}
        >>> print(law.call(x))
        [2.0149... 1.9845... 1.9631...]
    """
    dtype = _dtype(dtype)
    check_law(law)
    if beyond_setting(dtype):
        raise ValueError("a float64 program needs JAX set to 64 bits: jax.config.update('jax_enable_x64', True)")
    sizes = jax.export.symbolic_shape(shape)
    inputs = {
        v.name: jax.ShapeDtypeStruct((*sizes, *(law.sizes[axis] for axis in v.shape)), dtype)
        for v in variables(law.inputs)
    }
    return jax.export.export(jax.jit(lambda inputs: law(group, inputs)), platforms=platforms)(inputs)


def _dtype(dtype: Any) -> Any:
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, np.floating):
        raise TypeError(f"dtype must be a floating-point type such as 'float32', not {dtype}")
    return dtype
