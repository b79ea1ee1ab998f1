"""Arrays that are sharded along axes of a mesh that JAX calls Explicit: those that `jax.make_mesh` makes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import jax
from jax.sharding import PartitionSpec

__all__ = ["with_auto_axes"]


def with_auto_axes(fn: Callable[..., Any], args: Any, core_ndims: Any) -> Any:
    """`fn(*args)`, for whose computation Explicit axes of a mesh are Auto axes.

    Along Explicit axes, JAX refuses to compute with arrays that are sharded differently, such as inputs and
    coefficients. The results are on Explicit axes again: each axis of the batch is sharded as in the first of the
    arguments in which it is sharded.

    Args:
        fn: A function of arrays whose axes of the batch broadcast; in its results they come first.
        args: Its arguments, pytrees of arrays.
        core_ndims: The same pytrees, with the number of axes of each array that come after those of the batch.
    """
    leaves = jax.tree.leaves(args)
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in leaves]
    explicit = [mesh for mesh in meshes if mesh.explicit_axes]
    if not explicit:
        return fn(*args)
    batches = [
        jax.typeof(leaf).sharding.spec[: leaf.ndim - n]
        for leaf, n in zip(leaves, jax.tree.leaves(core_ndims), strict=True)
    ]
    spec: list[Any] = []
    for ways in zip_longest(*map(reversed, batches)):  # from the last axis on, as shapes broadcast
        taken = set(jax.tree.leaves(spec))  # an axis of the mesh shards one axis of an array
        free = (way for way in ways if way is not None and not taken & set(jax.tree.leaves(way)))
        spec.append(next(free, None))
    # Where no mesh is set, that of the arrays is.
    with jax.sharding.use_abstract_mesh(explicit[0]):
        return jax.sharding.auto_axes(fn, out_sharding=PartitionSpec(*reversed(spec)))(*args)
