"""What makes laws fast, counted: wall time is noise where tests run, and the program that XLA makes is not."""

from __future__ import annotations

import ast
import collections
import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import inputs

import jaxlaws as jl
from jaxlaws import evaluation
from jaxlaws.arguments import arguments

ROWS = 4096
DTYPES = [np.float32, np.float64]
VERBS = {
    "value": evaluation._value,
    "value and gradient": evaluation._value_and_gradient,
    "jacobian": evaluation._jacobian,
    "hessian": evaluation._hessian,
}

# Calls into a library, or loops, in the place of one loop over vectors of the machine.
SLOW = {"power", "log", "log-plus-one", "exponential-minus-one", "custom-call", "call", "while", "dot", "conditional"}
SLOW |= {"sort", "convolution"}

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="counts what the compiler for a CPU makes")


@pytest.fixture(params=[name for name, law in jl.laws.items() if law.groups])
def law(request):
    """Every law that has groups: what is fast is up to its formula."""
    return jl.laws[request.param]


class Program:
    """The optimised program for a batch of rows.

    Attributes:
        operations: How often each operation of XLA occurs.
        powers: The shape of each power that is computed: it rounds once.
        loops: How many loops there are over the rows.
        text: The program.
        temporary: Bytes of memory for what is neither argument nor result.
    """

    def __init__(self, lowered):
        compiled = lowered.compile()
        self.text = compiled.as_text()
        found = re.findall(r"^ *(?:ROOT )?%?\S+ = (\w+\[[\d,]*\]|\()\S*.*? ([a-z][a-z0-9-]*)\(", self.text, flags=re.M)
        self.operations = collections.Counter(operation for _, operation in found)
        self.loops = sum(operation == "fusion" and f"[{ROWS}" in shape for shape, operation in found)
        self.powers = [shape for shape, operation in found if operation == "round-nearest-even"]
        self.temporary = compiled.memory_analysis().temp_size_in_bytes


@functools.cache
def program(name, verb, dtype, groups="one", path="outermost"):
    law = jl.laws[name]
    ids = next(iter(law.groups)) if groups == "one" else np.zeros(ROWS, np.int32)
    x = inputs(law, ROWS, dtype=dtype)
    with jax.enable_x64(dtype == np.float64):
        weights = np.ones(several(law)) if several(law) and verb in ("value and gradient", "hessian") else None
        arrays, found, shape = arguments(law, ids, x, {}, weights)
        assert (found, shape) == (dtype, (ROWS,))
        compiled = evaluation._outermost("cpu") if path == "outermost" else evaluation._compiled
        return Program(compiled.lower(VERBS[verb], law, *arrays))


def several(law):
    """The number of outputs that are stacked, 0 for a single number or vector: they need weights, and a loop each."""
    return law.sizes.get("output", 0)


def slopes_of(law):
    """The verb for derivatives of a law."""
    return jl.jacobian if several(law) else jl.value_and_gradient


def powers_of(law):
    """The number of powers, counted in the formula; what occurs twice there is computed once."""
    nodes = ast.walk(ast.parse(law.formula, mode="eval"))
    powers = [node for node in nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)]
    return len({ast.dump(power) for power in powers if depends(power, law)})


def depends(node, law):
    """Whether part of a formula depends on inputs, and not on coefficients alone."""
    inputs = {v.name for v in jl.variables(law.inputs)}
    return any(isinstance(part, ast.Name) and part.id in inputs for part in ast.walk(node))


def exponentials_of(law):
    """The number of exponentials, which are vectors too; powers have their own."""
    nodes = ast.walk(ast.parse(law.formula, mode="eval"))
    return sum(isinstance(node, ast.Call) and node.func.id in ("exp", "expm1") for node in nodes)


def batch(dtype):
    return f"f{np.dtype(dtype).itemsize * 8}[{ROWS}]"


def test_formulas_count():
    counted = {name: powers_of(jl.laws[name]) for name in ("chinchilla", "data_constrained", "data_mixing", "kaplan")}
    assert counted == {"chinchilla": 2, "data_constrained": 4, "data_mixing": 0, "kaplan": 2}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("verb", ["value", "value and gradient"])
def test_each_power_is_computed_once_per_row(law, verb, dtype):
    found = program(law.name, verb, dtype)
    assert found.powers == [batch(dtype)] * powers_of(law)


@pytest.mark.parametrize("verb", ["jacobian", "hessian"])
def test_each_power_is_computed_once_for_many_derivatives(law, verb):
    assert program(law.name, verb, np.float32).powers == [batch(np.float32)] * powers_of(law)


def test_each_power_is_computed_once_per_row_of_mixed_groups(law):
    found = program(law.name, "value", np.float32, groups="mixed")
    assert found.powers == [batch(np.float32)] * powers_of(law)
    assert not found.operations.keys() & SLOW
    assert found.operations["exponential"] <= exponentials_of(law)
    assert not found.operations["scatter"]
    assert found.operations["gather"] <= len(dataclasses.fields(law.coefs)) + 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("verb", ["value", "value and gradient"])
def test_nothing_slow_is_in_the_program(law, verb, dtype):
    found = program(law.name, verb, dtype)
    assert sum(found.operations.values()) > (15 if law.name == "task_error" else 50), "the program was read"
    assert not found.operations.keys() & SLOW
    assert found.operations["exponential"] <= exponentials_of(law)
    assert found.operations["copy"] + found.operations["transpose"] <= min(several(law), 2)  # of what is stacked
    for operation in ("scatter", "gather", "dynamic-slice", "dynamic-update-slice"):
        assert not found.operations[operation]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("verb", ["value", "value and gradient"])
def test_nothing_is_computed_in_another_precision(law, verb, dtype):
    other = {np.float32: "f64", np.float64: "f32"}[dtype]
    assert f" {other}[" not in program(law.name, verb, dtype).text


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_prediction_is_one_loop(law, dtype):
    found = program(law.name, "value", dtype)
    assert 1 <= found.loops <= 2 + several(law)
    assert found.temporary <= ROWS * np.dtype(dtype).itemsize


def test_inside_a_program_of_the_caller_it_is_the_same(law):
    alone = program(law.name, "value", np.float32)
    inside = program(law.name, "value", np.float32, path="inside")
    assert inside.operations == alone.operations
    x = jax.tree.map(jnp.asarray, inputs(law, ROWS, dtype=np.float32))
    group = next(iter(law.groups))
    called = Program(jax.jit(lambda x: law(group, x)).lower(x))
    assert called.powers == alone.powers
    assert not called.operations.keys() & SLOW
    assert called.operations["exponential"] <= exponentials_of(law)


@pytest.mark.parametrize("name", ["data_constrained", "moe", "parallel"])
def test_powers_of_a_grid_are_computed_per_axis(name):
    law = jl.laws[name]
    group = next(iter(law.groups))
    first, second = law.input_columns[:2]
    n, p = np.full((64, 1), 2, np.float32), np.full((1, 32), 3, np.float32)
    rest = dict.fromkeys(law.input_columns[2:], np.float32(5))
    for verb in ("value", "value and gradient"):
        arrays, *_ = arguments(law, group, {first: n, second: p, **rest}, {}, None)
        found = Program(evaluation._outermost("cpu").lower(VERBS[verb], law, *arrays))
        assert len(found.powers) == powers_of(law)
        assert {"f32[64]", "f32[32]"} <= set(found.powers) <= {"f32[64]", "f32[32]", "f32[]"}


def test_one_program_for_all_groups(law, compilations):
    group, *others = law.groups
    mine = dataclasses.replace(law)
    x = jax.tree.map(jnp.asarray, inputs(law, 33, dtype=np.float32))
    for verb in (jl.predict, slopes_of(law)):
        with compilations() as first:
            verb(mine, group, x)
        assert first, "compilations are seen"
        with compilations() as count:
            for other in others:
                verb(mine, other, x)
            verb(mine, group, jax.tree.map(lambda leaf: np.asarray(leaf) * 2, x))
            verb(mine, jl.as_dict(law.groups[group]), x)
        assert count == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_call_compiles_nothing_but_its_program(law, dtype, compilations):
    """Neither conversions nor broadcasting, nor for other values, Python numbers, or another kind of array."""
    mine = dataclasses.replace(law)
    group = next(iter(law.groups))
    row = jax.tree.map(lambda leaf: leaf[0], inputs(law, 1))
    kinds = [lambda leaf: leaf.astype(dtype), lambda leaf: (3 * leaf).astype(dtype)]
    if dtype == np.float32:
        kinds.append(lambda leaf: leaf.tolist())
    other = dataclasses.replace(law)  # whose coefficients are converted: what that takes is compiled by now
    other(group, jax.tree.map(lambda leaf: leaf[None].astype(dtype), row))
    with compilations() as count:
        for kind in kinds:
            mine(group, jax.tree.map(kind, row))
    assert len(count) == 1
    batches = [jax.tree.map(lambda leaf: leaf[:20], inputs(law, 40, seed=seed, dtype=dtype)) for seed in range(3)]
    with compilations() as count:
        for x in batches:
            out = np.zeros_like(np.asarray(mine(group, x)))
            mine(group, x, out=out)
    assert len(count) == 1


def test_arrays_on_the_device_stay_there(law):
    group = next(iter(law.groups))
    x = jax.tree.map(jnp.asarray, inputs(law, 8, dtype=np.float32))
    ids = jnp.zeros(8, jnp.int32)
    verbs = (jl.predict, slopes_of(law))
    for verb in verbs:
        verb(law, group, x)
    inside = jax.jit(lambda ids, x: law(ids, x))
    inside(ids, x)
    with jax.transfer_guard("disallow"):
        with pytest.raises(Exception, match=r"(?i)disallowed host-to-device transfer"):
            jnp.sin(np.ones(8, np.float32))
        for verb in verbs:
            verb(law, group, x)
        inside(ids, x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_predictions_need_no_memory_but_for_the_result(law, dtype):
    """However many rows there are."""
    rows = 1 << 30
    coefs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), dtype), law.groups[next(iter(law.groups))])
    with jax.enable_x64(dtype == np.float64):
        x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), dtype), inputs(law, 1))
        assert evaluation.lower(law, coefs, x).compile().memory_analysis().temp_size_in_bytes < 1000


@pytest.mark.parametrize("count", [1000, 1 << 22])
def test_results_are_not_copied_for_numpy(count):
    found = jl.laws["sft"](0, sft_data_size=np.ones(count, np.float32))
    assert np.asarray(found).ctypes.data == found.unsafe_buffer_pointer()
