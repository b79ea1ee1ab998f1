"""Laws compiled ahead of time, and programs that run without this package."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUICK
from sampling import KINDS, inputs

import jaxlaws as jl

PARALLEL = jl.laws["parallel"]
MIXTURE = jl.laws["domain_mixture"]
SFT = jl.laws["sft"]
DTYPES = [np.float32, np.float64]
ROWS = 8


def fields(x):
    """The arrays of a record by name."""
    return {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}


def row(x, index=0):
    return jax.tree.map(lambda leaf: leaf[index], x)


def reshaped(x, shape):
    return jax.tree.map(lambda leaf: leaf.reshape((*shape, *leaf.shape[1:])), x)


@pytest.fixture(autouse=True)
def program(request):
    """Laws are compiled quickly, but for some."""
    if request.node.name.partition("[")[2].partition("-")[0].rstrip("]") not in ("parallel", "domain_mixture"):
        request.getfixturevalue("quick")


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_compiled_law_predicts_as_the_law_does(law, dtype, enabled):
    group = list(law.groups)[-1]
    x = inputs(law, ROWS, dtype=dtype)
    with jax.enable_x64(enabled):
        predict = jl.compile(law, group, ROWS, dtype)
        found, expected = predict(x), law(group, x)
        assert isinstance(found, jax.Array) is isinstance(expected, jax.Array)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(predict(**fields(x)), expected)
    with jax.enable_x64(not enabled):  # compiled is compiled
        np.testing.assert_array_equal(predict(x), expected)


@pytest.mark.parametrize("shape", [(), 1, (3,), (2, 3), (0,)])
def test_a_law_is_compiled_for_any_shape(shape):
    full = (shape,) if isinstance(shape, int) else shape
    for law in (PARALLEL, MIXTURE):
        group = next(iter(law.groups))
        x = reshaped(inputs(law, int(np.prod(full)), dtype=np.float32), full)
        found = jl.compile(law, group, shape)(x)
        np.testing.assert_array_equal(found, law(group, x))


def test_coefficients_can_be_compiled():
    x = inputs(PARALLEL, 4, dtype=np.float32)
    coefs = PARALLEL.coefs(**{name: 2 * value for name, value in jl.as_dict(PARALLEL.groups["pile"]).items()})
    np.testing.assert_array_equal(jl.compile(PARALLEL, coefs, 4)(x), PARALLEL(coefs, x))
    np.testing.assert_array_equal(jl.compile(PARALLEL, jl.as_dict(coefs), 4)(x), PARALLEL(coefs, x))


def test_inputs_are_converted_and_broadcast():
    predict = jl.compile(PARALLEL, "pile", 3)
    p = [1, 2, 4]
    expected = PARALLEL("pile", num_params=np.full(3, 1e9, np.float32), parallel_size=np.array(p, np.float32))
    for n in (1e9, 10**9, np.float64(1e9), np.full(3, 1e9), np.full(1, 10**9), jnp.full(3, 1e9), [1e9] * 3):
        found = predict(num_params=n, parallel_size=p)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(predict(n=1e9, world_size=np.array(p)), expected)
    np.testing.assert_array_equal(predict({"params": 1e9}, p=p), expected)
    backwards = np.array(p, np.float32)[::-1]
    np.testing.assert_array_equal(predict(n=1e9, p=backwards), expected[::-1])
    one = jl.compile(MIXTURE, "70M", 2)
    x = np.full(5, 0.2)
    np.testing.assert_array_equal(one(proportions=x), one(proportions=np.stack([x, x])))


def test_no_call_traces_or_compiles(law, compilations):
    traces = []

    @functools.wraps(law.fn)
    def fn(coefs, x):
        traces.append(1)
        return law.fn(coefs, x)

    counted = dataclasses.replace(law, fn=fn)
    group = next(iter(law.groups))
    predict = jl.compile(counted, group, 4)
    assert len(traces) == 1
    xs = [inputs(law, 4, seed=seed, dtype=dtype) for seed in range(2) for dtype in DTYPES]
    with compilations() as count:
        for x in xs:
            predict(x)
        predict(fields(xs[0]))
    assert count == []
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: jl.compile(PARALLEL, "pille"), jl.UnknownNameError, "'pille'; did you mean 'pile'"),
        (lambda: jl.compile(PARALLEL, "pile", dtype="int32"), TypeError, "floating-point type .*, not int32"),
        (lambda: jl.compile(PARALLEL, "pile", dtype=bool), TypeError, "floating-point type .*, not bool"),
        (lambda: jl.compile(PARALLEL, [0, 1], 2), TypeError, "^parallel: rows of several groups cannot be compiled"),
        (lambda: jl.compile(PARALLEL, ["pile"], 2), TypeError, "^parallel: rows of several groups cannot be compiled"),
        (lambda: jl.compile("parallel", "pile"), TypeError, "a law such as jl.laws"),
        (lambda: jl.compile(PARALLEL, "pile", 3)(n=1), TypeError, "^parallel: input 'parallel_size' .* is missing"),
        (lambda: jl.compile(PARALLEL, "pile", 3)(n=1, p=1, q=1), TypeError, "^parallel: unknown input 'q'"),
        (lambda: jl.compile(PARALLEL, "pile", 3)(n=[1, 2], p=1), ValueError, r"^parallel: num_params has shape \(2,\)"),
        (lambda: jl.compile(PARALLEL, "pile", 3)(n=[[1]] * 3, p=1), ValueError, r"num_params has shape \(3, 1\)"),
        (
            lambda: jl.compile(PARALLEL, "pile")(n=[1], p=1),
            ValueError,
            r"num_params has shape \(1,\); compiled for \(\)",
        ),
        (lambda: jl.compile(PARALLEL, "pile")(n="1", p=1), TypeError, "num_params must hold numbers"),
        (lambda: jl.compile(PARALLEL, "pile")(n=True, p=1), TypeError, "num_params must hold numbers, not bool"),
        (
            lambda: jl.compile(MIXTURE, "70M", 2)(proportions=[[0.2] * 4] * 2),
            ValueError,
            r"^domain_mixture: proportions has shape \(2, 4\); compiled for \(2, 5\)",
        ),
        (lambda: jl.export("parallel", "pile"), TypeError, "a law such as jl.laws"),
        (lambda: jl.export(PARALLEL, "pille"), jl.UnknownNameError, "'pille'; did you mean 'pile'"),
        (lambda: jl.export(PARALLEL, "pile", dtype="int32"), TypeError, "floating-point type .*, not int32"),
        (lambda: jl.export(PARALLEL, "pile", dtype="float64"), ValueError, "jax_enable_x64"),
    ],
)
def test_what_cannot_be_compiled_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_exported_law_takes_any_batch(law, dtype):
    group = next(iter(law.groups))
    with jax.enable_x64(dtype == np.float64):
        program = jax.export.deserialize(jl.export(law, group, dtype=dtype).serialize())
        call = jax.jit(program.call, compiler_options=QUICK)
        rounding = 1e-14 if dtype == np.float64 else 2e-6
        usual = np.median(np.abs(law(group, inputs(law, ROWS, dtype=dtype))))  # an output near 0 is a difference
        for count in (1, ROWS):
            x = inputs(law, count, dtype=dtype)
            found = call(fields(x))
            assert found.dtype == dtype
            expected = np.asarray(law(group, x))
            np.testing.assert_allclose(found, expected, rtol=rounding, atol=rounding * usual)


def test_an_exported_law_has_a_gradient(x64):
    program = jax.export.deserialize(jl.export(SFT, 0, dtype="float64").serialize(vjp_order=2))
    x = inputs(SFT, 9)
    by_size = jax.grad(lambda x: program.call(x).sum())
    found = jax.jit(by_size)(fields(x))["sft_data_size"]
    np.testing.assert_allclose(found, jl.gradient(SFT, 0, x).sft_data_size, rtol=1e-13)
    twice = jax.jit(jax.grad(lambda x: by_size(x)["sft_data_size"].sum()))(fields(x))["sft_data_size"]
    np.testing.assert_allclose(twice, jl.hessian(SFT, 0, x).sft_data_size.sft_data_size, rtol=1e-12)


@pytest.mark.parametrize("law", [PARALLEL, MIXTURE], ids=lambda law: law.name)
def test_an_exported_law_takes_any_grid(law):
    group = next(iter(law.groups))
    x = inputs(law, 24, dtype=np.float32)
    expected = np.asarray(law(group, x))

    def called(program, x):
        return jax.jit(program.call, compiler_options=QUICK)(x)

    both = jl.export(law, group, "n, m")
    for shape in ((4, 6), (24, 1), (1, 24)):
        found = called(both, fields(reshaped(x, shape)))
        np.testing.assert_allclose(found, expected.reshape(*shape, *expected.shape[1:]), rtol=1e-6)
    half = jl.export(law, group, "n, 6")
    np.testing.assert_allclose(np.ravel(called(half, fields(reshaped(x, (4, 6))))), expected.ravel(), rtol=1e-6)
    with pytest.raises(ValueError, match="6"):
        half.call(fields(reshaped(x, (6, 4))))
    single = jl.export(law, group, "")
    np.testing.assert_allclose(called(single, fields(row(x))), expected[0], rtol=1e-6)


def test_an_exported_law_names_its_platforms():
    program = jl.export(PARALLEL, "pile", platforms=["cpu", "cuda", "tpu"])
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert "stablehlo.power " in program.mlir_module()
    assert "stablehlo.bitcast_convert " in program.mlir_module()
    x = inputs(PARALLEL, 5, dtype=np.float32)
    np.testing.assert_allclose(program.call(fields(x)), PARALLEL("pile", x), rtol=1e-6)
    assert jl.export(PARALLEL, "pile").platforms == (jax.default_backend(),)
    elsewhere = jl.export(PARALLEL, "pile", platforms=["cuda"]).mlir_module()
    assert "bitcast_convert" not in elsewhere


def test_an_exported_law_holds_its_coefficients():
    program = jl.export(PARALLEL, "pile")
    assert len(program.in_avals) == len(PARALLEL.input_columns)
    x = fields(inputs(PARALLEL, 5, dtype=np.float32))
    assert not np.array_equal(program.call(x), jl.export(PARALLEL, "stack").call(x))


WITHOUT = """
import sys

sys.modules["jaxlaws"] = None
try:
    import jaxlaws
except ImportError:
    pass
else:
    raise SystemExit("jaxlaws can be imported")

import jax, jax.export, numpy as np

folder, *names = sys.argv[1:]
for name in names:
    with open(f"{folder}/{name}.bin", "rb") as file:
        law = jax.export.deserialize(bytearray(file.read()))
    inputs = dict(np.load(f"{folder}/{name}.npz"))

    def both(inputs):
        return law.call(inputs), jax.grad(lambda inputs: law.call(inputs).sum())(inputs)

    value, gradient = jax.jit(both, compiler_options={"xla_backend_optimization_level": 0})(inputs)
    np.savez(f"{folder}/{name}-found.npz", value=value, **gradient)
"""


def test_exported_laws_run_where_this_package_is_not(tmp_path):
    expected = {}
    for name in KINDS:
        law = jl.laws[name]
        group = next(iter(law.groups))
        x = inputs(law, ROWS, dtype=np.float32)
        (tmp_path / f"{name}.bin").write_bytes(jl.export(law, group).serialize(vjp_order=1))
        np.savez(tmp_path / f"{name}.npz", **fields(x))
        ones = np.ones(len(law.output_columns), np.float32) if law.output_shape else None
        expected[name] = {"value": law(group, x), **fields(jl.gradient(law, group, x, weights=ones))}
    subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path), *KINDS], check=True, cwd=tmp_path)
    for name in KINDS:
        found = dict(np.load(tmp_path / f"{name}-found.npz"))
        assert found.keys() == expected[name].keys()
        for field, value in expected[name].items():
            scale = np.abs(value).max()
            np.testing.assert_allclose(found[field], value, rtol=1e-5, atol=1e-6 * scale, err_msg=f"{name} {field}")
