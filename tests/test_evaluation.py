"""The door for numbers: what callers may pass, and what they are told when it does not fit."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from sampling import inputs

import jaxlaws as jl
from jaxlaws import evaluation
from jaxlaws.columns import BLOCK, in_blocks

PARALLEL = jl.laws["parallel"]
MIXTURE = jl.laws["domain_mixture"]
SFT = jl.laws["sft"]


@pytest.mark.parametrize(
    "column",
    [
        [1e9, 2e9],
        (1e9, 2e9),
        np.array([1e9, 2e9]),
        np.array([1_000_000_000, 2_000_000_000]),
        [10**9, 2 * 10**9],
        pd.Series([1e9, 2e9]),
        pl.Series([1e9, 2e9]),
        pa.array([1e9, 2e9]),
        jnp.array([1e9, 2e9]),
        np.array([1e9, 2e9], object),
    ],
    ids=lambda c: f"{type(c).__module__}.{type(c).__name__}",
)
def test_any_array_of_numbers_will_do(column):
    found = PARALLEL("pile", num_params=column, parallel_size=4)
    expected = jl.sldbench.law("parallel")([{"n": n, "p": 4} for n in (1e9, 2e9)], "pile")
    np.testing.assert_allclose(found, [row["loss"] for row in expected], rtol=1e-6)


def test_integers_beyond_32_bits_are_kept():
    for value in (10**12, np.int64(10**12), np.array(10**12), np.uint64(10**12), [10**12], 10**30, [10**30]):
        expected = PARALLEL("pile", num_params=np.asarray(value, np.float64), parallel_size=1)
        np.testing.assert_allclose(PARALLEL("pile", num_params=value, parallel_size=1), expected, rtol=1e-6)


def test_float64_in_float64_out_whatever_jax_is_set_to():
    x = np.logspace(8, 10, 5)
    found = PARALLEL("pile", num_params=x, parallel_size=2)
    assert found.dtype == np.float64
    with jax.enable_x64(True):
        again = PARALLEL("pile", num_params=x, parallel_size=2)
    assert np.array_equal(found, again)
    assert isinstance(again, jax.Array)
    assert isinstance(found, np.ndarray), "32-bit JAX has no float64 arrays to compute with"
    assert found.argmin() == 4
    assert (found - found.min()).dtype == np.mean(found).dtype == np.float64
    assert isinstance(jl.gradient(PARALLEL, "pile", num_params=x, parallel_size=2).num_params, np.ndarray)
    assert PARALLEL("pile", num_params=[1e9], parallel_size=2).dtype == np.float32
    assert PARALLEL("pile", num_params=np.float32(1e9), parallel_size=np.int64(2)).dtype == np.float32
    assert PARALLEL("pile", num_params=np.float32(1e9), parallel_size=np.float64(2)).dtype == np.float64
    assert PARALLEL("pile", parallel_size=2, num_params=np.float64(1e9)).dtype == np.float64  # in any order
    with jax.enable_x64(True):
        assert PARALLEL("pile", num_params=[1e9], parallel_size=2).dtype == np.float64


def test_arrays_of_several_dtypes_meet_in_the_widest():
    single = jnp.array([1, 2], "float32")
    found = PARALLEL("pile", num_params=np.array([1e9, 2e9]), parallel_size=single)
    assert found.dtype == np.float64
    assert np.array_equal(found, PARALLEL("pile", num_params=np.array([1e9, 2e9]), parallel_size=np.array([1.0, 2.0])))
    x = np.full((3, 5), 0.2)
    weights = jnp.asarray(np.full(5, 0.2, np.float32))
    gradient = jl.gradient(MIXTURE, "70M", proportions=x, weights=weights).proportions
    assert gradient.dtype == np.float64
    np.testing.assert_allclose(gradient, jl.gradient(MIXTURE, "70M", proportions=x).proportions, rtol=1e-6)
    half = PARALLEL("pile", num_params=jnp.array(1e9, "bfloat16"), parallel_size=single)
    assert half.dtype == np.float32


def test_inside_a_transformation_jax_rules():
    x = np.logspace(8, 10, 5)
    found = jax.jit(lambda p: PARALLEL("pile", num_params=x, parallel_size=p))(2.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, PARALLEL("pile", num_params=x, parallel_size=2), rtol=1e-6)


def test_coefficients_that_are_jax_arrays_bring_their_dtype():
    with jax.enable_x64(True):
        coefs = jax.tree.map(jnp.asarray, PARALLEL.groups["pile"])
        assert PARALLEL(coefs, num_params=1e9, parallel_size=2).dtype == np.float64
        single = jax.tree.map(lambda c: jnp.asarray(c, "float32"), coefs)
        assert PARALLEL(single, num_params=1e9, parallel_size=2).dtype == np.float32
        assert PARALLEL(single, num_params=np.array(1e9), parallel_size=2).dtype == np.float64


def test_inputs_by_name_alias_record_and_dict_agree():
    expected = PARALLEL("stack", num_params=1e9, parallel_size=2)
    assert PARALLEL("stack", n=1e9, world_size=2) == expected
    assert PARALLEL("stack", PARALLEL.inputs(num_params=1e9, parallel_size=2)) == expected
    assert PARALLEL("stack", {"params": 1e9, "p": 2}) == expected
    assert PARALLEL("stack", {"params": 1e9}, p=2) == expected
    assert PARALLEL(jl.as_dict(PARALLEL.groups["stack"]), n=1e9, p=2) == expected
    assert PARALLEL(1, n=1e9, p=2) == expected
    assert jl.predict(PARALLEL, "stack", n=1e9, p=2) == expected


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: PARALLEL("pile", num_params=1e9), TypeError, "'parallel_size' .parallel streams. is missing"),
        (lambda: PARALLEL("pile", num_params=1, parallel_size=1, tokens=1), TypeError, "unknown input 'tokens'"),
        (lambda: PARALLEL("pile", num_params=1, n=1, p=1), TypeError, "'num_params' is given twice, once as 'n'"),
        (lambda: PARALLEL("pile", num_params="1e9", p=1), TypeError, "num_params must hold numbers"),
        (lambda: PARALLEL("pile", num_params=[None], p=1), TypeError, "num_params must hold numbers"),
        (lambda: PARALLEL("pile", num_params=True, p=1), TypeError, "num_params must hold numbers, not bool"),
        (lambda: PARALLEL("pile", num_params=1j, p=1), TypeError, "num_params must hold numbers, not complex"),
        (lambda: PARALLEL("pile", 3.0), TypeError, "must be a record or a dict"),
        (
            lambda: PARALLEL("pile", PARALLEL.inputs(num_params=1, parallel_size=1), p=1),
            TypeError,
            "as a record or by name",
        ),
        (lambda: PARALLEL("pile", n=[1, 2], p=[1, 2, 3]), ValueError, r"num_params \(2,\), parallel_size \(3,\)"),
        (lambda: PARALLEL([0, 1], n=[1, 2, 3], p=1), ValueError, r"num_params \(3,\), group \(2,\)|group \(2,\)"),
        (lambda: MIXTURE("70M", proportions=[0.5, 0.5]), ValueError, r"proportions has shape \(2,\).*domain = 5"),
        (lambda: MIXTURE("70M", proportions=0.2), ValueError, r"proportions has shape \(\)"),
        (lambda: jl.gradient(MIXTURE, "70M", proportions=[0.2] * 5, weights=[1]), ValueError, "weights has shape"),
        (lambda: PARALLEL("pille", n=1, p=1), jl.UnknownNameError, "'pille'; did you mean 'pile'"),
        (lambda: PARALLEL(["pile", "x"], n=1, p=1), jl.UnknownNameError, "'x'; known: 'pile', 'stack'"),
        (lambda: SFT("gpt2 flan", sft_data_size=1), jl.UnknownNameError, r"""did you mean "\('gpt2', 'flan'\)"""),
        (lambda: SFT("gpt2", sft_data_size=1), jl.UnknownNameError, r"""did you mean "\('gpt2', 'flan'\)\""""),
        (lambda: PARALLEL("pile", num_param=1, p=1), TypeError, "unknown input 'num_param'; did you mean 'num_params'"),
        (
            lambda: jl.gradient("parallel", "pile", n=1, p=1),
            TypeError,
            r"a law such as jl.laws\['parallel'\] is needed",
        ),
        (lambda: SFT("?", sft_data_size=1), jl.UnknownNameError, "42 are known, from"),
        (lambda: PARALLEL(2, n=1, p=1), IndexError, "group id 2 is not in 0 to 1"),
        (lambda: PARALLEL([0, -1], n=1, p=1), IndexError, "group id -1"),
        (lambda: PARALLEL(1.0, n=1, p=1), TypeError, "a group is a name, an id"),
        (lambda: PARALLEL(None, n=1, p=1), jl.UnknownNameError, "None"),
        (lambda: PARALLEL({"c0": 1.0}, n=1, p=1), TypeError, "missing or unknown coefficients: alpha, beta"),
        (
            lambda: MIXTURE(dataclasses.replace(MIXTURE.groups["70M"], intercept=np.zeros(4)), proportions=[0.2] * 5),
            ValueError,
            "coef_linear has shape",
        ),
        (lambda: jl.laws["chinchila"], jl.UnknownNameError, "unknown law 'chinchila'"),
    ],
)
def test_what_does_not_fit_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_an_unknown_name_is_a_key_error():
    assert "nope" not in jl.laws
    assert jl.laws.get("nope") is None
    with pytest.raises(KeyError) as error:
        jl.laws["nope"]
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_ids_may_be_traced_and_then_give_nan_out_of_range():
    found = jax.jit(lambda g: PARALLEL(g, num_params=1e9, parallel_size=1))(jnp.array([0, 1, 2, -1, -2, -3]))
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[2:]).all()
    wide = np.array([1e9, 2e9])
    assert jax.jit(lambda g: PARALLEL(g, num_params=wide, parallel_size=1))(jnp.array([0, 1])).dtype == np.float32


def test_ids_of_any_integer_type():
    expected = PARALLEL(["stack", "pile"], n=1e9, p=1)
    for ids in ([1, 0], (1, 0), np.array([1, 0], np.int8), np.array([1, 0], np.uint64), jnp.array([1, 0])):
        assert np.array_equal(PARALLEL(ids, n=1e9, p=1), expected)


def test_a_list_of_tracers_is_a_vector():
    slope = jax.jit(jax.grad(lambda a: MIXTURE("70M", proportions=[a, 1 - a, 0, 0, 0])[0]))(0.5)
    jacobian = jl.jacobian(MIXTURE, "70M", proportions=[0.5, 0.5, 0, 0, 0]).proportions
    np.testing.assert_allclose(slope, jacobian[0, 0] - jacobian[0, 1], rtol=1e-5)


def test_a_derived_law_is_its_own():
    mine = dataclasses.replace(PARALLEL, groups={"mine": PARALLEL.groups["pile"]})
    assert copy.deepcopy(mine) is mine
    other = pickle.loads(pickle.dumps(dataclasses.replace(SFT, groups=mine.groups)))  # never another law in its place
    assert (other.fn, list(other.groups)) == (SFT.fn, ["mine"])
    again = pickle.loads(pickle.dumps(mine))
    assert list(again.groups) == ["mine"]
    assert again("mine", n=1e9, p=1) == PARALLEL("pile", n=1e9, p=1)


def test_elasticity_of_a_negative_output_keeps_its_sign():
    law = dataclasses.replace(SFT, fn=lambda c, x: -(x.sft_data_size**2))
    assert jl.elasticity(law, 0, sft_data_size=3.0).sft_data_size == 2


def test_no_rows():
    empty = np.zeros(0)
    assert PARALLEL("pile", num_params=empty, parallel_size=1).shape == (0,)
    assert PARALLEL([], num_params=empty, parallel_size=1).shape == (0,)
    assert MIXTURE("70M", proportions=np.zeros((0, 5))).shape == (0, 5)
    assert jl.gradient(MIXTURE, "70M", proportions=np.zeros((3, 0, 5))).proportions.shape == (3, 0, 5)


# Laws that are compiled fast: how shapes broadcast is not up to the formula.
SIMPLE = dataclasses.replace(PARALLEL, fn=lambda c, x: c.c0 - c.alpha * x.num_params * jnp.exp(-x.parallel_size))
LINEAR = dataclasses.replace(MIXTURE, fn=lambda c, x: c.intercept + (c.coef_linear * x.proportions).sum(axis=1))


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3))
def test_shapes_broadcast_as_in_numpy(quick, shapes):
    random = np.random.default_rng(0)
    ids = random.integers(2, size=shapes.input_shapes[0])
    n, p = (np.exp(random.random(shape)) for shape in shapes.input_shapes[1:])
    found = np.asarray(SIMPLE(ids, num_params=n, parallel_size=p))
    assert found.shape == shapes.result_shape
    full = [np.broadcast_to(a, shapes.result_shape).ravel() for a in (ids, n, p)]
    one_by_one = [SIMPLE(int(g), num_params=a, parallel_size=b) for g, a, b in zip(*full, strict=True)]
    np.testing.assert_allclose(found.ravel(), one_by_one, rtol=1e-13)
    gradient = jl.gradient(SIMPLE, ids, num_params=n, parallel_size=p)
    assert gradient.num_params.shape == gradient.parallel_size.shape == shapes.result_shape


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=mutually_broadcastable_shapes(num_shapes=3, max_dims=2, max_side=3))
def test_vectors_broadcast_by_their_leading_axes(quick, shapes):
    random = np.random.default_rng(0)
    a, b, c = shapes.input_shapes
    stacked = jax.tree.map(lambda leaf: leaf[random.integers(4, size=a)], jl.stack(MIXTURE.groups.values()))
    p = random.dirichlet(np.ones(5), b)
    w = random.random((*c, 5))
    assert jl.gradient(LINEAR, stacked, proportions=p, weights=w).proportions.shape == (*shapes.result_shape, 5)
    assert LINEAR(stacked, proportions=p).shape == (*np.broadcast_shapes(a, b), 5)


def test_a_grid_computes_each_power_once_per_axis():
    n, p = np.ones((64, 1), np.float32), np.ones((1, 32), np.float32)
    program = jax.jit(lambda n, p: PARALLEL("pile", num_params=n, parallel_size=p)).lower(n, p).compile().as_text()
    # Each power rounds once.
    assert sorted(re.findall(r"= (\S+)\{\S* round-nearest-even", program)) == ["f32[32]", "f32[64]"]


@pytest.mark.parametrize("count", [0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_blocks_are_the_whole(count):
    x = np.random.default_rng(0).random((count, 2))
    shapes = set()

    def fn(rows):
        shapes.add(rows[0].shape[0])
        return {"sum": jnp.asarray(rows[0].sum(axis=1)), "one": rows[1]}

    found = in_blocks(fn, (x, x[:, 0]), count, BLOCK)
    np.testing.assert_allclose(found["sum"], x.sum(axis=1), rtol=1e-6)
    assert np.array_equal(found["one"], x[:, 0])
    assert all(size == 0 or size & (size - 1) == 0 for size in shapes)
    assert len(shapes) == 1


def test_evaluates_inside_a_thread_pool():
    from concurrent.futures import ThreadPoolExecutor

    x = np.logspace(8, 10, 100)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda g: np.asarray(PARALLEL(g, num_params=x, parallel_size=2)), ["pile", "stack"] * 20))
    assert all(np.array_equal(found[i], found[i % 2]) for i in range(40))
    assert not jax.config.jax_enable_x64


# Large batches: block by block, with the same result.


def traced(law, traces):
    """The law, adding to a list with each trace."""

    def fn(coefs, x):
        traces.append(1)
        return law.fn(coefs, x)

    return dataclasses.replace(law, fn=functools.wraps(law.fn)(fn))


@pytest.fixture
def small_blocks(monkeypatch):
    """A function that computes a call with blocks of a few rows; it fails where the batch is not cut."""
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        pytest.skip("blocks are for one CPU")

    def compute(call, length=128):
        lengths = []

        def spied(fn, rows, count, length, out=None):
            def noted(part):
                found = fn(part)
                lengths.extend({leaf.shape[0] for leaf in jax.tree.leaves(part)})
                return found

            return in_blocks(noted, rows, count, length, out)

        with monkeypatch.context() as patch:
            patch.setattr(evaluation, "WHOLE_BYTES", 1 << 10)
            patch.setattr(evaluation, "BLOCK_BYTES", 1)
            patch.setattr(evaluation, "MIN_BLOCK", length)
            patch.setattr(evaluation, "in_blocks", spied)
            evaluation._layout.cache_clear()
            found = call()
        evaluation._layout.cache_clear()
        assert len(lengths) > 1, "cut into blocks"
        assert set(lengths) == {length}, "all of one length"
        return found

    return compute


def assert_same(found, expected):
    """Equal bit for bit, and of the same types."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, jax.Array) is isinstance(b, jax.Array)
        assert a.dtype == b.dtype
        if isinstance(a, np.ndarray):
            assert not a.flags.writeable
            assert not b.flags.writeable
        np.testing.assert_array_equal(a, b)


ROWS = 1003


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_batches_are_small_ones(law, dtype, small_blocks):
    x = inputs(law, ROWS, dtype=dtype)
    group = list(law.groups)[-1]
    assert_same(small_blocks(lambda: law(group, x)), law(group, x))


@pytest.mark.parametrize(("verb", "dtype"), [(jl.value_and_gradient, np.float32), (jl.jacobian, np.float64)])
@pytest.mark.parametrize("law", [PARALLEL, MIXTURE], ids=lambda law: law.name)
def test_large_batches_of_derivatives_are_small_ones(law, verb, dtype, small_blocks):
    x = inputs(law, ROWS, dtype=dtype)
    group = next(iter(law.groups))
    assert_same(small_blocks(lambda: verb(law, group, x)), verb(law, group, x))


def large_calls():
    random = np.random.default_rng(0)
    n, p = (np.exp(random.normal(size=ROWS)).astype(np.float32) for _ in range(2))
    mixture = random.dirichlet(np.ones(5), ROWS).astype(np.float32)
    ids = random.integers(2, size=ROWS)
    weights = random.random((ROWS, 5), np.float32)
    rows = jax.tree.map(lambda leaf: leaf[ids].astype(np.float32), jl.stack(PARALLEL.groups.values()))
    matrices = jax.tree.map(lambda leaf: leaf[ids].astype(np.float32), jl.stack(MIXTURE.groups.values()))
    sft = random.integers(42, size=ROWS)
    padded = np.zeros((ROWS, 3), np.float32)
    padded[:, 1] = n
    memory = np.zeros(4 * ROWS + 64, np.uint8)
    start = -memory.ctypes.data % 64 + 4
    shifted = memory[start : start + 4 * ROWS].view(np.float32)
    shifted[:] = n
    return {
        "rows of mixed groups": lambda: SFT(sft, sft_data_size=n),
        "names of groups": lambda: PARALLEL(np.array(["pile", "stack"])[ids], n=n, p=p),
        "gradient of mixed groups": lambda: jl.value_and_gradient(SFT, sft, sft_data_size=n),
        "mixed groups, vectors": lambda: MIXTURE(ids, proportions=mixture),
        "one id for all": lambda: PARALLEL(np.array([1]), n=n, p=p),
        "coefficients per row": lambda: PARALLEL(rows, n=n, p=p),
        "matrices per row": lambda: jl.gradient(MIXTURE, matrices, proportions=mixture),
        "matrices per row, one input": lambda: MIXTURE(matrices, proportions=mixture[0]),
        "weights": lambda: jl.value_and_gradient(MIXTURE, "70M", proportions=mixture, weights=weights[0]),
        "weights per row": lambda: jl.value_and_gradient(MIXTURE, "70M", proportions=mixture, weights=weights),
        "weights per row, one input": lambda: jl.gradient(MIXTURE, "70M", proportions=mixture[0], weights=weights),
        "one number for all": lambda: PARALLEL("pile", n=n, p=2),
        "grid": lambda: PARALLEL("pile", n=n[:, None], p=p[:7]),
        "gradient on a grid": lambda: jl.value_and_gradient(PARALLEL, "pile", n=n[:, None], p=p[:7]),
        "grid the other way": lambda: PARALLEL("pile", n=n[:7], p=p[:, None]),
        "grid of groups": lambda: SFT(sft[:, None], sft_data_size=n[:7]),
        "square grid": lambda: PARALLEL("pile", n=n[:300], p=p[:300, None]),
        "last axis alone": lambda: PARALLEL("pile", n=np.full((300, 1), 2, np.float32), p=p[:300]),
        "full square and a row": lambda: PARALLEL("pile", n=np.resize(n, (300, 300)), p=p[:300]),
        "three axes": lambda: PARALLEL([[0], [1]], n=n[:, None, None], p=p[:5]),
        "columns of a matrix": lambda: PARALLEL("pile", n=padded[:, 1], p=p),
        "backwards": lambda: PARALLEL("pile", n=n[::-1], p=p),
        "every other row": lambda: PARALLEL("pile", n=np.repeat(n, 2)[::2], p=p),
        "transposed": lambda: MIXTURE("70M", proportions=np.asfortranarray(mixture)),
        "misaligned": lambda: PARALLEL("pile", n=shifted, p=p),
        "differently misaligned": lambda: PARALLEL("pile", n=shifted[2:], p=p[:-2]),
        "JAX arrays": lambda: PARALLEL("pile", n=jnp.asarray(n), p=jnp.asarray(p)),
        "one JAX array": lambda: PARALLEL("pile", n=jnp.asarray(n), p=p),
        "integers": lambda: PARALLEL("pile", n=n, p=np.arange(1, ROWS + 1)),
        "half precision": lambda: PARALLEL("pile", n=jnp.asarray(n, "bfloat16"), p=jnp.asarray(p, "bfloat16")),
    }


# XLA adds up products of a row with matrices or weights of its own in an order that depends on how many rows there are.
ANY_ORDER = ["matrices per row", "weights per row"]
# Powers of one axis are computed for each block: the cases whose last bits are looked at in what users get.
GRIDS = ["grid", "gradient on a grid", "grid of groups", "square grid", "last axis alone", "three axes"]
WEIGHTS = ["weights", "weights per row, one input"]


@pytest.mark.parametrize("case", large_calls())
def test_whatever_is_large_is_cut_right(case, small_blocks, request):
    if case not in [*GRIDS, *WEIGHTS]:
        request.getfixturevalue("quick")
    call = large_calls()[case]
    found, expected = small_blocks(call), call()
    if case in ANY_ORDER:
        scale = max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(expected))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * scale), found, expected)
    else:
        assert_same(found, expected)


def test_coefficients_are_not_cut_where_there_are_as_many_groups_as_rows(small_blocks):
    ids, x = np.arange(42)[::-1, None], np.linspace(1, 2, 40, dtype=np.float32)
    assert_same(small_blocks(lambda: SFT(ids, sft_data_size=x), 16), SFT(ids, sft_data_size=x))


def test_a_leading_axis_of_one_is_not_cut(monkeypatch):
    x = np.linspace(1, 2, ROWS, dtype=np.float32)[None]
    expected = PARALLEL("pile", n=x, p=2)
    monkeypatch.setattr(evaluation, "WHOLE_BYTES", 1 << 10)
    monkeypatch.setattr(evaluation, "in_blocks", None)
    assert_same(PARALLEL("pile", n=x, p=2), expected)


def test_large_means_the_points_and_not_the_arrays(small_blocks):
    n, p = np.ones((100, 1), np.float32), np.ones((1, 100), np.float32)
    assert n.nbytes + p.nbytes < 900
    assert small_blocks(lambda: PARALLEL("pile", n=n, p=p), 64).shape == (100, 100)


def test_blocks_are_traced_once(small_blocks):
    traces = []
    law = traced(PARALLEL, traces)
    for count in (1000, 1001, 640, 1500):
        x = np.linspace(1, 2, count, dtype=np.float32)
        for group in ("pile", "stack"):
            small_blocks(lambda group=group, x=x: law(group, n=x, p=x))
    assert len(traces) == 2  # the program, and a look at how large the result for one point is


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_rows_that_fill_blocks_are_computed_once(blocks):
    memory = np.zeros(blocks * BLOCK + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    lengths = []
    in_blocks(lambda x: lengths.append(len(x)) or x, memory[start : start + blocks * BLOCK], blocks * BLOCK, BLOCK)
    assert lengths == [BLOCK] * blocks


@pytest.mark.parametrize("start", [0, 1, 7, 15])
def test_blocks_begin_where_rows_are_aligned(start):
    memory = np.zeros(5000, np.float32)
    first = -memory.ctypes.data % 64 // 4 + start
    x = memory[first : first + 4000]
    x[:] = np.arange(4000)
    addresses = []

    def fn(rows):
        addresses.append(rows.ctypes.data % 64)
        return rows.copy()

    np.testing.assert_array_equal(in_blocks(fn, x, 4000, 256), x)
    assert len(addresses) == 16
    assert all(address == 0 for address in addresses[1:-1])


# Results in memory of the caller.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_out_takes_the_result(law, dtype, small_blocks):
    x = inputs(law, ROWS, dtype=dtype)
    group = next(iter(law.groups))
    expected = np.asarray(law(group, x))
    for compute in (lambda call: call(), small_blocks):
        out = np.full(expected.shape, -1, dtype)
        assert compute(lambda out=out: law(group, x, out=out)) is out
        np.testing.assert_array_equal(out, expected)
        assert out.flags.writeable
    assert jl.predict(law, group, x, out=out) is out


def test_out_of_any_shape_and_layout(small_blocks):
    n, p = np.linspace(1, 2, ROWS, dtype=np.float32)[:, None], np.arange(1, 8, dtype=np.float32)
    expected = np.asarray(PARALLEL("pile", n=n, p=p))
    for compute in (lambda call: call(), small_blocks):
        for out in (
            np.zeros((ROWS, 7), np.float32),
            np.zeros((7, ROWS), np.float32).T,
            np.zeros((ROWS, 14), np.float32)[:, ::2],
            np.zeros((2 * ROWS, 7), np.float32)[::-2],
        ):
            assert compute(lambda out=out: PARALLEL("pile", n=n, p=p, out=out)) is out
            np.testing.assert_array_equal(out, expected)
    single = np.zeros((), np.float32)
    assert PARALLEL("pile", n=1e9, p=2, out=single) is single
    assert single == PARALLEL("pile", n=1e9, p=2)
    with jax.enable_x64(True):
        single = np.zeros(())
        assert PARALLEL("pile", n=1e9, p=2, out=single) is single
        assert single == PARALLEL("pile", n=1e9, p=2)


@pytest.mark.parametrize("enabled", [False, True])
def test_memory_of_a_jax_array_is_used_again(law, enabled, monkeypatch):
    monkeypatch.setattr(evaluation, "in_blocks", None)
    group = next(iter(law.groups))
    with jax.enable_x64(enabled):
        x, other = (inputs(law, ROWS, seed=seed, dtype=float if enabled else np.float32) for seed in (0, 1))
        expected = np.array(law(group, x))
        out = law(group, other)
        memory = out.unsafe_buffer_pointer()
        with monkeypatch.context() as patch:
            patch.setattr(evaluation, "WHOLE_BYTES", 1 << 10)
            found = law(group, x, out=out)
        assert isinstance(found, jax.Array)
        assert found.unsafe_buffer_pointer() == memory
        assert out.is_deleted()
        np.testing.assert_array_equal(found, expected)


def test_a_jax_array_is_given_up_once():
    x = jnp.ones(ROWS)
    law = jl.laws["sft"]
    out = law(0, sft_data_size=2 * x)
    found = law(0, sft_data_size=x, out=out)
    with pytest.raises(ValueError, match=r"^sft: out was given up already; give the array that came of it"):
        law(0, sft_data_size=x, out=out)
    with pytest.raises(Exception, match=r"(?i)donat"):
        law(0, sft_data_size=found, out=found)
    with pytest.raises(TypeError, match=r"^sft: out must be an array of NumPy or JAX, not .*Tracer"):
        jax.jit(lambda out: law(0, sft_data_size=x, out=out))(found)


def test_out_may_be_an_input(small_blocks):
    x = np.exp(np.random.default_rng(0).normal(size=ROWS)).astype(np.float32)
    expected = np.asarray(SFT(0, sft_data_size=x))
    backwards = np.asarray(SFT(0, sft_data_size=x[::-1]))
    for compute in (lambda call: call(), small_blocks):
        out = x.copy()
        compute(lambda out=out: SFT(0, sft_data_size=out, out=out))
        np.testing.assert_array_equal(out, expected)
        out = x.copy()
        compute(lambda out=out: SFT(0, sft_data_size=out[::-1], out=out))
        np.testing.assert_array_equal(out, backwards)


def read_only(shape):
    array = np.zeros(shape, np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "error", "words"),
    [
        ([0.0, 0.0], TypeError, "out must be an array of NumPy or JAX, not list"),
        (pd.Series([0.0, 0.0]), TypeError, "out must be an array of NumPy or JAX, not Series"),
        (jnp.zeros(3), ValueError, r"writable float32 array of shape \(2,\), not a .* shape \(3,\)"),
        (jnp.zeros(2, int), ValueError, r"writable float32 array .*, not an? int32 array"),
        (np.zeros(3, np.float32), ValueError, r"writable float32 array of shape \(2,\), not a .* shape \(3,\)"),
        (np.zeros((2, 1), np.float32), ValueError, r"of shape \(2,\), not a .* of shape \(2, 1\)"),
        (np.zeros((), np.float32), ValueError, r"of shape \(2,\), not a .* of shape \(\)"),
        (np.zeros(2), ValueError, r"writable float32 array .*, not a float64 array"),
        (np.zeros(2, int), ValueError, r"writable float32 array .*, not an? int64 array"),
        (read_only(2), ValueError, r"not a read-only float32 array"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_out_cannot_be(out, error, words):
    before = np.array(out)
    with pytest.raises(error, match="^parallel: .*" + words):
        PARALLEL("pile", n=np.ones(2, np.float32), p=1, out=out)
    np.testing.assert_array_equal(np.asarray(out), before)


def test_out_of_vectors_has_their_axis():
    x = np.full((3, 5), 0.2, np.float32)
    with pytest.raises(ValueError, match=r"^domain_mixture: .* of shape \(3, 5\), not a .* of shape \(3,\)"):
        MIXTURE("70M", proportions=x, out=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"^domain_mixture: .*float64 .*, not a float32"):
        MIXTURE("70M", proportions=x.astype(float), out=np.zeros((3, 5), np.float32))


def test_out_is_not_for_transformations():
    x, out = np.ones(2, np.float32), np.zeros(2, np.float32)
    for transform in (jax.jit, jax.grad, jax.vmap):
        with pytest.raises(TypeError, match=r"^parallel: out= cannot be written to inside a transformation"):
            transform(lambda p: PARALLEL("pile", n=x, p=p, out=out).sum())(
                np.float32(2) if transform != jax.vmap else x
            )
    assert not out.any()
    with pytest.raises(TypeError, match="out"):
        jl.gradient(PARALLEL, "pile", n=x, p=x, out=out)
    jax.jit(lambda p: p * PARALLEL("pile", n=x, p=x, out=out)[0])(2.0)  # what is known is computed at once
    np.testing.assert_array_equal(out, PARALLEL("pile", n=x, p=x))


# Known inputs inside transformations of the caller: computed at once, by the same program as outside.


@pytest.mark.parametrize(("dtype", "enabled"), [(np.float32, False), (np.float64, False), (np.float64, True)])
def test_known_inputs_inside_transformations(dtype, enabled, small_blocks):
    traces = []
    law = traced(PARALLEL, traces)
    x = np.logspace(8, 10, ROWS).astype(dtype)

    def fixed():
        return law("pile", num_params=x, parallel_size=2)

    with jax.enable_x64(enabled):
        expected = np.asarray(fixed())
        assert expected.dtype == dtype
        kept = jnp.asarray(expected)  # float32 where JAX is set to 32 bits
        jitted = jax.jit(lambda s: s * fixed())
        step = jax.jit(lambda c, s: (c, fixed() * s))
        ones = np.ones(3, kept.dtype)
        for _ in range(2):
            np.testing.assert_array_equal(jitted(ones[0]), kept)
            np.testing.assert_array_equal(jax.vmap(lambda s: s * fixed())(ones), np.stack([kept] * 3))
            np.testing.assert_array_equal(jax.lax.scan(step, 0, ones)[1], np.stack([kept] * 3))
            slope = jax.grad(lambda s: (s * fixed()).sum())(ones[0])
            np.testing.assert_allclose(slope, np.asarray(kept).sum(), rtol=1e-6)
        assert len(traces) == 1
        blocks = jax.jit(lambda s: s * small_blocks(fixed))
        np.testing.assert_array_equal(blocks(ones[0]), kept)
        assert len(traces) == 3  # one is of a single point, to know how large results are


@pytest.mark.parametrize(("law", "enabled"), [(PARALLEL, False), (SFT, True), (MIXTURE, False)])
def test_traced_inputs_inside_transformations_do_not_retrace(law, enabled):
    traces = []
    law = traced(law, traces)
    group = next(iter(law.groups))
    with jax.enable_x64(enabled):
        rows = inputs(law, 8, dtype=np.float32)
        x, larger = (jax.tree.map(lambda leaf, by=by: jnp.asarray(leaf * np.float32(by)), rows) for by in (1, 1.5))
        one = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), rows)
        calls = [
            jax.jit(lambda x: law(group, x)),
            jax.jit(jax.vmap(lambda x: law(group, x))),
            jax.jit(lambda x: jax.lax.scan(lambda c, row: (c, law(group, row)), 0, x)[1]),
            jax.jit(lambda x: jl.gradient(law, group, x)),
            jax.jit(lambda x: jax.lax.map(jax.grad(lambda row: law(group, row).sum()), x)),
        ]
        expected = law(group, x)
        for i, call in enumerate(calls):
            first = call(x)
            count = len(traces)
            for _ in range(3):
                call(larger)
            assert len(traces) == count, "traced once"
            if i < 3:
                np.testing.assert_allclose(first, expected, rtol=1e-6)
        law(group, one)
        count = len(traces)
        for group in list(law.groups)[:3]:
            law(group, one)
        assert len(traces) == count


def test_switching_the_setting_back_and_forth_does_not_retrace():
    traces = []
    law = traced(PARALLEL, traces)
    single, double = np.ones(4, np.float32), np.ones(4)
    for _ in range(3):
        for enabled in (False, True):
            with jax.enable_x64(enabled):
                law("pile", n=single, p=single)
                law("pile", n=double, p=double)
    assert len(traces) <= 3, "once for each dtype, and for float32 in either setting"
