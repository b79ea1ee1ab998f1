"""Laws compiled ahead of time and exported."""

from __future__ import annotations

import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxlaws as jl

LAWS = list(jl.laws)
PARALLEL = jl.laws["parallel"]


def configurations(law, shape, dtype):
    random = np.random.default_rng(0)
    return {
        v.name: random.uniform(0.1, 0.3, (*shape, *(law.sizes[axis] for axis in v.shape))).astype(dtype)
        if v.shape
        else np.exp(random.uniform(*np.log(v.range), shape)).astype(dtype)
        for v in jl.variables(law.inputs)
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAWS)
def test_compiled_is_the_law(name, dtype):
    law = jl.laws[name]
    group = list(law.groups)[-1]
    x = configurations(law, (7,), dtype)
    predict = jl.compile(law, group, shape=7, dtype=dtype)
    found = predict(**x)
    expected = law(group, **x)
    assert type(found) is type(expected)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


def test_compiled_broadcasts_converts_and_never_traces():
    traces = []

    def fn(c, x):
        traces.append(1)
        return PARALLEL.fn(c, x)

    law = jl.Law(**{**{f: getattr(PARALLEL, f) for f in PARALLEL.__dataclass_fields__}, "fn": fn})
    predict = jl.compile(law, "pile", shape=(2, 3))
    count = len(traces)
    found = predict({"n_params": 10**9, "parallel_size": [1, 2, 4]})
    np.testing.assert_array_equal(found[0], PARALLEL("pile", num_params=1e9, parallel_size=[1, 2, 4]))
    assert found.shape == (2, 3)
    assert len(traces) == count
    assert jl.compile(PARALLEL, "pile")(num_params=1e9, parallel_size=2).shape == ()


def test_what_does_not_fit_is_told():
    predict = jl.compile(PARALLEL, "pile", shape=3)
    with pytest.raises(ValueError, match=r"parallel: parallel_size has shape \(2,\); compiled for \(3,\)"):
        predict(num_params=1e9, parallel_size=[1, 2])
    with pytest.raises(TypeError, match=r"'parallel_size' .* is missing"):
        predict(num_params=1e9)
    with pytest.raises(TypeError, match="several groups"):
        jl.compile(PARALLEL, [0, 1, 1], shape=3)
    for make in (jl.compile, jl.export):
        with pytest.raises(TypeError, match="floating-point"):
            make(PARALLEL, "pile", dtype="int32")
        with pytest.raises(jl.UnknownNameError, match=r"did you mean 'pile'"):
            make(PARALLEL, "pil")
    with pytest.raises(ValueError, match="64 bits"):
        jl.export(PARALLEL, "pile", dtype="float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAWS)
def test_exported_is_the_law_for_any_batch(name, dtype):
    law = jl.laws[name]
    group = list(law.groups)[-1]
    with jax.enable_x64(dtype == "float64"):
        exported = jax.export.deserialize(jl.export(law, group, dtype=dtype).serialize(vjp_order=1))
        for rows in (1, 5):
            x = configurations(law, (rows,), dtype)
            np.testing.assert_allclose(exported.call(x), law(group, **x), rtol=4 * np.finfo(dtype).eps)
        gradient = jax.grad(
            lambda x: exported.call(x).mean(axis=-1).sum() if law.output_shape else exported.call(x).sum()
        )
        expected = jl.gradient(law, group, **x)
        for key, slope in gradient(x).items():
            np.testing.assert_allclose(slope, getattr(expected, key), rtol=1e3 * np.finfo(dtype).eps)


def test_exported_takes_grids_and_other_platforms():
    exported = jl.export(PARALLEL, "pile", shape="n, m", platforms=["cpu", "cuda", "tpu"])
    x = configurations(PARALLEL, (3, 4), "float32")
    np.testing.assert_allclose(exported.call(x), PARALLEL("pile", **x), rtol=1e-6)
    assert exported.platforms == ("cpu", "cuda", "tpu")


def test_exported_runs_without_this_package(tmp_path):
    path = tmp_path / "law"
    path.write_bytes(jl.export(PARALLEL, "pile").serialize())
    program = f"""
import sys
sys.modules["jaxlaws"] = None
import jax, jax.export, numpy as np
law = jax.export.deserialize(bytearray(open({str(path)!r}, "rb").read()))
print(float(law.call({{"num_params": np.full(1, 1e9, np.float32), "parallel_size": np.ones(1, np.float32)}})[0]))
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(out) == pytest.approx(float(PARALLEL("pile", num_params=1e9, parallel_size=1)), rel=1e-6)
