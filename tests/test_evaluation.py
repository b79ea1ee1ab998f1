"""The door for numbers: what callers may pass, and what they are told when it does not fit."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import jaxlaws as jl
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
    with jax.enable_x64(True):
        assert PARALLEL("pile", num_params=[1e9], parallel_size=2).dtype == np.float64


def test_arrays_of_several_dtypes_meet_in_the_widest():
    single = jnp.array([1, 2], "float32")
    found = PARALLEL("pile", num_params=np.array([1e9, 2e9]), parallel_size=single)
    assert found.dtype == np.float64
    assert np.array_equal(found, PARALLEL("pile", num_params=np.array([1e9, 2e9]), parallel_size=np.array([1.0, 2.0])))
    x = np.full((3, 5), 0.2)
    weights = jnp.ones(5, "float32") / 5
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
    slope = jax.grad(lambda a: MIXTURE("70M", proportions=[a, 1 - a, 0, 0, 0])[0])(0.5)
    jacobian = jl.jacobian(MIXTURE, "70M", proportions=[0.5, 0.5, 0, 0, 0]).proportions
    np.testing.assert_allclose(slope, jacobian[0, 0] - jacobian[0, 1], rtol=1e-5)


def test_a_derived_law_is_its_own():
    mine = dataclasses.replace(PARALLEL, groups={"mine": PARALLEL.groups["pile"]})
    assert copy.deepcopy(mine) is mine
    with pytest.raises((pickle.PicklingError, AttributeError)):  # never another law in its place
        pickle.loads(pickle.dumps(dataclasses.replace(SFT, groups=mine.groups)))
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


@settings(deadline=None, max_examples=30)
@given(mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3))
def test_shapes_broadcast_as_in_numpy(shapes):
    random = np.random.default_rng(0)
    ids = random.integers(2, size=shapes.input_shapes[0])
    n, p = (np.exp(random.random(shape)) for shape in shapes.input_shapes[1:])
    found = np.asarray(PARALLEL(ids, num_params=n, parallel_size=p))
    assert found.shape == shapes.result_shape
    full = [np.broadcast_to(a, shapes.result_shape).ravel() for a in (ids, n, p)]
    one_by_one = [PARALLEL(int(g), num_params=a, parallel_size=b) for g, a, b in zip(*full, strict=True)]
    np.testing.assert_allclose(found.ravel(), one_by_one, rtol=1e-13)
    gradient = jl.gradient(PARALLEL, ids, num_params=n, parallel_size=p)
    assert gradient.num_params.shape == gradient.parallel_size.shape == shapes.result_shape


@settings(deadline=None, max_examples=20)
@given(mutually_broadcastable_shapes(num_shapes=3, max_dims=2, max_side=3))
def test_vectors_broadcast_by_their_leading_axes(shapes):
    random = np.random.default_rng(0)
    a, b, c = shapes.input_shapes
    stacked = jax.tree.map(lambda leaf: leaf[random.integers(4, size=a)], jl.stack(MIXTURE.groups.values()))
    p = random.dirichlet(np.ones(5), b)
    w = random.random((*c, 5))
    assert jl.gradient(MIXTURE, stacked, proportions=p, weights=w).proportions.shape == (*shapes.result_shape, 5)
    assert MIXTURE(stacked, proportions=p).shape == (*np.broadcast_shapes(a, b), 5)


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


def test_evaluates_inside_a_thread_pool():
    from concurrent.futures import ThreadPoolExecutor

    x = np.logspace(8, 10, 100)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda g: np.asarray(PARALLEL(g, num_params=x, parallel_size=2)), ["pile", "stack"] * 20))
    assert all(np.array_equal(found[i], found[i % 2]) for i in range(40))
    assert not jax.config.jax_enable_x64
