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
from conftest import QUICK, UNOPTIMISED
from sampling import inputs

import jaxlaws as jl
from jaxlaws import evaluation
from jaxlaws.arguments import arguments
from jaxlaws.numerics import power

ROWS = 4096
LARGE = 1 << 30
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

# What is counted is there before machine code is made, which is therefore not made better than it has to be. The older
# way to make it is quicker still; what it does not do is to put single operations into loops of their own.
ANY_CODE = UNOPTIMISED

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="counts what the compiler for a CPU makes")


@pytest.fixture(params=[name for name, law in jl.laws.items() if law.groups])
def law(request):
    """Every law that has groups: what is fast is up to its formula."""
    return jl.laws[request.param]


class Program:
    """The optimised program for a batch of rows.

    Attributes:
        operations: How often each operation of XLA occurs.
        rows: How many there are.
        powers: The shape of each power that is computed: it rounds once.
        loops: How many loops there are over the rows.
        text: The program.
        temporary: Bytes of memory for what is neither argument nor result.
    """

    def __init__(self, lowered, rows=ROWS, options=QUICK):
        self.rows = rows
        compiled = lowered.compile(compiler_options=options)
        self.text = compiled.as_text()
        found = re.findall(r"^ *(?:ROOT )?%?\S+ = (\w+\[[\d,]*\]|\()\S*.*? ([a-z][a-z0-9-]*)\(", self.text, flags=re.M)
        self.operations = collections.Counter(operation for _, operation in found)
        self.loops = sum(operation == "fusion" and f"[{rows}" in shape for shape, operation in found)
        self.powers = [shape for shape, operation in found if operation == "round-nearest-even"]
        self.temporary = compiled.memory_analysis().temp_size_in_bytes


@functools.cache
def program(name, verb, dtype, groups="one"):
    """The program that a call runs; that of a prediction for many rows, whose loops and memory are looked at."""
    rows = LARGE if verb == "value" and groups == "one" else ROWS
    return Program(lowered(name, verb, dtype, groups, rows), rows, ANY_CODE if rows == LARGE else QUICK)


def lowered(name, verb, dtype, groups="one", rows=ROWS, compiled=None):
    law = jl.laws[name]
    ids = next(iter(law.groups)) if groups == "one" else np.zeros(8, np.int32)
    with jax.enable_x64(dtype == np.float64):
        weights = np.ones(several(law)) if several(law) and verb in ("value and gradient", "hessian") else None
        (coefs, ids, x, weights), found, shape = arguments(law, ids, inputs(law, 8, dtype=dtype), {}, weights)
        assert (found, shape) == (dtype, (8,))
        ids, x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), (ids, x))
        return (compiled or evaluation._outermost.jitted).lower(VERBS[verb], law, coefs, ids, x, weights)


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


def batch(dtype, rows=ROWS):
    return f"f{np.dtype(dtype).itemsize * 8}[{rows}]"


def test_formulas_count():
    counted = {name: powers_of(jl.laws[name]) for name in ("chinchilla", "data_constrained", "data_mixing", "kaplan")}
    assert counted == {"chinchilla": 2, "data_constrained": 4, "data_mixing": 0, "kaplan": 2}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("verb", ["value", "value and gradient"])
def test_each_power_is_computed_once_per_row(law, verb, dtype):
    found = program(law.name, verb, dtype)
    assert found.powers == [batch(dtype, found.rows)] * powers_of(law)


@pytest.mark.parametrize(("verb", "dtype"), [("jacobian", np.float32), ("hessian", np.float64)])
def test_each_power_is_computed_once_for_many_derivatives(law, verb, dtype):
    """Second derivatives are computed in float64."""
    assert program(law.name, verb, np.float32).powers == [batch(dtype)] * powers_of(law)


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
    assert found.temporary <= ROWS * np.dtype(dtype).itemsize < LARGE * np.dtype(dtype).itemsize


def test_inside_a_program_of_the_caller_it_is_the_same(law):
    alone, inside = (
        lowered(law.name, "value", np.float32, compiled=compiled)
        for compiled in (evaluation._outermost.jitted, evaluation._compiled)
    )
    assert inside.as_text() == alone.as_text()
    if law.name in ("chinchilla", "domain_mixture"):  # which is then compiled to the same, whatever the options
        assert Program(inside, options=None).operations == Program(alone, options=None).operations
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((ROWS, *leaf.shape[1:]), np.float32), inputs(law, 1))
    group = next(iter(law.groups))
    called = Program(jax.jit(lambda x: law(group, x)).lower(x))
    assert called.powers == [batch(np.float32)] * len(program(law.name, "value", np.float32).powers)
    assert not called.operations.keys() & SLOW
    assert called.operations["exponential"] <= exponentials_of(law)


@pytest.mark.parametrize(("name", "verb"), [("data_constrained", "value and gradient"), ("moe", "hessian")])
def test_what_is_counted_is_what_is_run(name, verb):
    """However fast it is compiled, and for however many rows, but for single operations that are no loop."""
    run, quick = (Program(lowered(name, verb, np.float32), options=options) for options in (None, QUICK))
    run.operations -= collections.Counter(fusion=run.operations["fusion"], parameter=run.operations["parameter"])
    assert run.operations <= quick.operations
    assert {*quick.operations - run.operations} <= {"fusion", "parameter"}
    assert quick.powers == run.powers
    few = Program(lowered(name, "value", np.float32), options=None)
    many = program(name, "value", np.float32)
    assert (many.operations, many.loops, many.rows) == (few.operations, few.loops, LARGE)


@pytest.mark.parametrize("name", ["data_constrained", "moe", "parallel"])
def test_powers_of_a_grid_are_computed_per_axis(name):
    law = jl.laws[name]
    group = next(iter(law.groups))
    first, second = law.input_columns[:2]
    n, p = np.full((64, 1), 2, np.float32), np.full((1, 32), 3, np.float32)
    rest = dict.fromkeys(law.input_columns[2:], np.float32(5))
    for verb in ("value", "value and gradient"):
        arrays, *_ = arguments(law, group, {first: n, second: p, **rest}, {}, None)
        found = Program(evaluation._outermost.jitted.lower(VERBS[verb], law, *arrays))
        assert len(found.powers) == powers_of(law)
        assert {"f32[64]", "f32[32]"} <= set(found.powers) <= {"f32[64]", "f32[32]", "f32[]"}


def test_one_program_for_all_groups_whose_arrays_stay_on_the_device(law, compilations, quick):
    group, *others = law.groups
    mine = dataclasses.replace(law)
    x = jax.tree.map(jnp.asarray, inputs(law, 8, dtype=np.float32))
    reversed_rows = jax.tree.map(lambda leaf: np.asarray(leaf)[::-1], x)
    verbs = (jl.predict, slopes_of(law))
    for verb in verbs:
        with compilations() as first:
            verb(mine, group, x)
        assert first, "compilations are seen"
        with compilations() as count:
            for other in others:
                verb(mine, other, x)
            verb(mine, group, reversed_rows)
            verb(mine, jl.as_dict(law.groups[group]), x)
        assert count == []
    ids = jnp.asarray(np.zeros(8, np.int32))
    inside = jax.jit(lambda ids, x: mine(ids, x), compiler_options=QUICK)
    inside(ids, x)
    with jax.transfer_guard("disallow"):
        with pytest.raises(Exception, match=r"(?i)disallowed host-to-device transfer"):
            jnp.sin(np.ones(8, np.float32))
        for verb in verbs:
            verb(mine, group, x)
        inside(ids, x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_call_compiles_nothing_but_its_program(law, dtype, compilations, quick):
    """Neither conversions nor broadcasting, nor for other values, Python numbers, or another kind of array."""
    mine = dataclasses.replace(law)
    group = next(iter(law.groups))
    rows = inputs(law, 2)
    kinds = [lambda leaf: leaf[0].astype(dtype), lambda leaf: leaf[1].astype(dtype)]
    if dtype == np.float32:
        kinds.append(lambda leaf: leaf[0].tolist())
    sizes = [law.sizes[axis] for axis in law.output_shape]
    other = dataclasses.replace(law, fn=lambda c, x: np.ones(sizes) * power(jax.tree.leaves(x)[0].sum(), 2.0))
    # What it takes to convert coefficients, and to trace, is compiled by now.
    other(group, jax.tree.map(lambda leaf: leaf[:1].astype(dtype), rows))
    with compilations() as count:
        for kind in kinds:
            mine(group, jax.tree.map(kind, rows))
    assert len(count) == 1
    batches = [jax.tree.map(lambda leaf: leaf[:7], inputs(law, 40, seed=seed, dtype=dtype)) for seed in range(3)]
    with compilations() as count:
        for x in batches:
            out = np.zeros_like(np.asarray(mine(group, x)))
            mine(group, x, out=out)
    assert len(count) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_predictions_need_no_memory_but_for_the_result(law, dtype):
    """However many rows there are."""
    found = program(law.name, "value", dtype)
    assert found.rows == LARGE
    assert found.temporary < 1000


def test_a_law_compiled_for_many_rows_is_that_program():
    law = jl.laws["parallel"]
    coefs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), np.float32), law.groups["pile"])
    x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((LARGE, *leaf.shape[1:]), np.float32), inputs(law, 1))
    found = evaluation.lower(law, coefs, x)
    assert found.as_text() == lowered(law.name, "value", np.float32, rows=LARGE).as_text()


@pytest.mark.parametrize("count", [1000, 1 << 22])
def test_results_are_not_copied_for_numpy(count):
    found = jl.laws["sft"](0, sft_data_size=np.ones(count, np.float32))
    assert np.asarray(found).ctypes.data == found.unsafe_buffer_pointer()
