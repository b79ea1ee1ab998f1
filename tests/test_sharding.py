"""Arrays on a mesh of devices, whose axes JAX calls Explicit or Auto; as a program, on all devices that there are."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxlaws as jl

PARALLEL = jl.laws["parallel"]
VERBS = jl.predict, jl.gradient, jl.jacobian, jl.hessian, jl.elasticity, jl.value_and_gradient
IDS = np.array([0, 1, 1, 0] * 2, np.int32)
SIZE = np.geomspace(1e9, 4e9, 8, dtype=np.float32)
STREAMS = np.tile(np.array([1, 2, 4, 8], np.float32), 2)


def mesh_of(kind):
    return Mesh(np.array(jax.devices()), ("rows",), axis_types=(AxisType[kind],))


def sharded(mesh, array):
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec("rows")))


def same(found, expected, kept=None):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-30)
        if kept is not None:
            assert ours.sharding.mesh == kept
            assert kept.size == 1 or "rows" in ours.sharding.spec


def check_calls(mesh):
    """Each verb, where all inputs are sharded, or one of them and the ids of groups; within jit, too."""
    n, p = sharded(mesh, SIZE), sharded(mesh, STREAMS)
    for verb in VERBS:
        mixed = verb(PARALLEL, IDS, num_params=SIZE, parallel_size=STREAMS)
        same(verb(PARALLEL, sharded(mesh, IDS), num_params=n, parallel_size=STREAMS), mixed, kept=mesh)
        alone = verb(PARALLEL, "pile", num_params=SIZE, parallel_size=STREAMS)
        same(verb(PARALLEL, "pile", num_params=n, parallel_size=p), alone, kept=mesh)
        within = jax.jit(lambda x, verb=verb: verb(PARALLEL, "pile", x))
        same(within({"num_params": n, "parallel_size": p}), alone, kept=mesh)
    grid = PARALLEL("pile", num_params=n[:, None], parallel_size=p)  # JAX alone refuses to compute with these
    same(grid, PARALLEL("pile", num_params=SIZE[:, None], parallel_size=STREAMS), kept=mesh)
    with jax.set_mesh(mesh):
        slope = jax.grad(lambda n: PARALLEL("pile", num_params=n, parallel_size=p).sum())(n)
        same(slope, jl.gradient(PARALLEL, "pile", num_params=SIZE, parallel_size=STREAMS).num_params, kept=mesh)


def check_searches(mesh):
    budget = np.geomspace(1e20, 1e22, 8, dtype=np.float32)
    upper = np.linspace(0.3, 0.9, 8, dtype=np.float32)[:, None] * np.ones(5, np.float32)
    for search, law, group, name, given in (
        (jl.allocate, jl.laws["chinchilla"], "besiroglu2024", "budget", budget),
        (jl.optimize_mixture, jl.laws["data_mixing"], "pile_70m", "upper", upper),
    ):
        found, expected = (search(law, group, **{name: x}) for x in (sharded(mesh, given), given))
        same(found.loss, expected.loss)
        assert bool(found.converged.all())
    by_group = jax.jit(lambda ids, budget: jl.allocate(jl.laws["chinchilla"], ids, budget=budget, in_range=True))
    found = by_group(sharded(mesh, IDS), sharded(mesh, budget))
    same(found.loss, jl.laws["chinchilla"](IDS, jax.tree.map(np.asarray, found.inputs)))
    assert bool(found.converged.all())
    assert not any(outside.any() for outside in jax.tree.leaves(found.extrapolated))


def test_several_devices():
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    subprocess.run([sys.executable, __file__], check=True, env={**os.environ, "XLA_FLAGS": flags})


@pytest.mark.parametrize("kind", ["Explicit", "Auto"])
def test_memory_of_an_array_on_a_mesh_is_used_again(kind):
    mesh = mesh_of(kind)
    n, p = sharded(mesh, SIZE), sharded(mesh, STREAMS)
    found = PARALLEL("pile", num_params=n, parallel_size=p, out=sharded(mesh, np.zeros_like(SIZE)))
    same(found, PARALLEL("pile", num_params=SIZE, parallel_size=STREAMS), kept=mesh)


if __name__ == "__main__":
    assert jax.device_count() == 4
    for kind in ("Explicit", "Auto"):
        check_calls(mesh_of(kind))
    check_searches(mesh_of("Explicit"))
