"""Batches that are padded to a few sizes, and compiled programs that are kept for other processes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from sampling import inputs

import jaxlaws as jl
from jaxlaws import evaluation, programs

PARALLEL = jl.laws["parallel"]
SFT = jl.laws["sft"]
MIXTURE = jl.laws["domain_mixture"]
DTYPES = [np.float32, np.float64]

pytestmark = [
    pytest.mark.skipif(not programs.one_cpu(), reason="batches are padded, and programs kept, on one CPU"),
    pytest.mark.usefixtures("optimised"),
]


def own(law=SFT, scale=1.0):
    """A law with a function of its own, which is compiled fast."""
    return dataclasses.replace(law, fn=lambda c, x: scale * c.A * jnp.exp(-c.alpha * x.sft_data_size))


def leaves(*results):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(results)]


def assert_same(found, expected):
    """Equal bit for bit."""
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


# Sizes.


@given(st.integers(1, 1 << 40))
def test_a_size_has_room_for_the_batch_and_not_much_more(count):
    size = programs.roomy(count)
    assert count <= size
    assert size == 8 or size < 1.5 * count
    assert programs.roomy(size) == size
    assert programs.roomy(count + 1) >= size
    while size % 2 == 0:
        size //= 2
    assert size in (1, 3), "a power of two, or three halves of one"


def test_sizes_are_few():
    assert sorted({programs.roomy(count) for count in range(1, 129)}) == [8, 12, 16, 24, 32, 48, 64, 96, 128]
    assert sorted({evaluation._size(count) for count in range(1, 129)}) == [8, 32, 128]


@given(st.integers(1, 1 << 40))
def test_rows_are_padded_by_less_where_they_are_many(count):
    size = evaluation._size(count)
    assert count <= size < max(4 * count, 9)
    assert size < 2 * count or count <= 512
    assert size < 1.5 * count or count <= 1 << 14
    assert evaluation._size(size) == size
    assert evaluation._size(count + 1) >= size


@given(
    arrays.arrays(
        st.sampled_from([np.dtype("f4"), np.dtype("f8"), np.dtype("i4"), np.dtype(bool)]),
        arrays.array_shapes(max_dims=3, max_side=5),
    ),
    st.integers(0, 9),
)
def test_the_last_row_fills_a_batch_up(array, more):
    before = array.copy()
    found = programs.padded(array, len(array) + more)
    assert found.shape == (len(array) + more, *array.shape[1:])
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found[: len(array)], before)
    np.testing.assert_array_equal(found[len(array) :], np.repeat(before[-1:], more, axis=0))
    assert not np.shares_memory(found, array)


# Results do not depend on how many rows come with one.


def piece(tree, start, stop):
    return jax.tree.map(lambda leaf: leaf[start:stop], tree)


def with_bad_rows(law, count, dtype):
    """Random rows, and some with NaN, infinity or negative numbers between them."""
    x = jax.tree.map(np.array, inputs(law, count, dtype=dtype))
    for v in jl.variables(law.inputs):
        leaf = getattr(x, v.name)
        leaf[2], leaf[5], leaf[-1] = np.nan, np.inf, -1
        if v.total is not None:  # a sum that is infinite is an error, and one of -inf and inf is NaN
            leaf[5, 0], leaf[-1, 0] = -np.inf, v.total + leaf.shape[1] - 1
    return x


@pytest.mark.parametrize("dtype", DTYPES)
def test_predictions_of_a_row_are_the_same_in_any_batch(law, dtype):
    group = list(law.groups)[-1]
    x = with_bad_rows(law, 1003, dtype)  # the lengths of test_evaluation, for the same programs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = np.asarray(law(group, x))
        for start, stop in ((0, 128), (1, 98), (897, 1003)):
            assert_same(law(group, piece(x, start, stop)), whole[start:stop])
    good = [row for row in range(len(whole)) if row not in (2, 5, 1002)]
    assert np.isfinite(whole[good]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_slopes_of_a_row_of_mixed_groups_are_the_same_in_any_batch(law, dtype, request):
    if law not in (PARALLEL, MIXTURE):
        request.getfixturevalue("quick")
    x = with_bad_rows(law, 11, dtype)
    ids = np.arange(11) % len(law.groups)
    weights = np.arange(1, 1 + len(law.output_columns)).astype(dtype) if law.output_shape else None

    def slopes(start, stop):
        return jl.value_and_gradient(law, ids[start:stop], piece(x, start, stop), weights=weights)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole, first = slopes(0, 11), slopes(0, 8)
        for start, stop in ((0, 1), (0, 8), (3, 10), (5, 6), (10, 11)):
            found = slopes(start, stop)
            # Sums of products are rounded once or twice, as the compiler likes, which it may do otherwise in 12 rows.
            for a, b in zip(leaves(found), leaves(piece(whole, start, stop)), strict=True):
                np.testing.assert_allclose(a, b, rtol=8 * np.finfo(dtype).eps)
            if stop <= 8:
                assert_same(found, piece(first, start, stop))
            for leaf in jax.tree.leaves(found):
                assert leaf.shape[0] == stop - start
                assert isinstance(leaf, np.ndarray if dtype == np.float64 else jax.Array)
    for leaf in leaves(whole):
        assert np.isfinite(np.delete(leaf, [2, 5, 10], axis=0)).all()


def test_lengths_share_programs(compilations):
    law = own()
    lengths = [*range(1, 12, 2), *range(13, 197, 8), 200]
    sizes = {evaluation._size(length) for length in lengths}
    assert (len(lengths), len(sizes)) == (30, 4)
    x = np.linspace(1, 2, 200, dtype=np.float32)
    law(0, sft_data_size=x[:9])  # what converting coefficients and tracing take
    with compilations() as count:
        for length in lengths:
            found = law(0, sft_data_size=x[:length])
            assert found.shape == (length,)
    assert len(count) == len(sizes - {32})
    with compilations() as count:
        for length in range(1, 201):
            law(1, sft_data_size=x[:length])
    assert count == []


def test_a_length_that_comes_often_gets_a_program_of_its_own(monkeypatch, compilations):
    law = own()
    x = np.linspace(1, 2, 100, dtype=np.float32)
    monkeypatch.setattr(evaluation, "OWN_PROGRAM", 4 * (100 + evaluation.FILLING))
    evaluation._layout.cache_clear()
    counts, results = [], []
    for _ in range(6):
        with compilations() as count:
            results.append(law(0, sft_data_size=x))
        counts.append(len(count))
    evaluation._layout.cache_clear()
    assert counts[0] >= 1
    assert counts[1:] == [0, 0, 1, 0, 0]
    for found in results:
        assert_same(found, results[0])


def test_only_batches_of_one_axis_are_padded(compilations):
    law = own()
    x = np.linspace(1, 2, 30, dtype=np.float32)
    expected = np.asarray(law(0, sft_data_size=x))
    for shape in ((5, 6), (6, 5), (1, 30), (30, 1)):
        with compilations() as count:
            found = law(0, sft_data_size=x.reshape(shape))
        assert len(count) == 1
        assert_same(found, expected.reshape(shape))
    assert law(0, sft_data_size=x[:0]).shape == (0,)
    assert_same(law(0, sft_data_size=x[3]), expected[3])
    traced = jax.jit(lambda x: law(0, sft_data_size=x))
    assert traced.trace(x).out_info.shape == (30,)
    np.testing.assert_allclose(traced(x), expected, rtol=1e-6)


def test_results_in_memory_of_the_caller():
    x = np.linspace(1, 2, 7, dtype=np.float32)
    expected = np.asarray(SFT(0, sft_data_size=x))
    out = np.full(7, -1, np.float32)
    assert SFT(0, sft_data_size=x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    larger = np.full(9, -1, np.float32)
    SFT(0, sft_data_size=x, out=larger[1:8])
    np.testing.assert_array_equal(larger, [-1, *expected, -1])
    out = x.copy()
    SFT(0, sft_data_size=out, out=out)
    np.testing.assert_array_equal(out, expected)
    given_up = jnp.asarray(x)
    found = SFT(0, sft_data_size=x, out=given_up)
    assert given_up.is_deleted()
    np.testing.assert_array_equal(found, expected)


double = jax.jit(lambda x: 2 * x, donate_argnums=0)


@pytest.mark.parametrize("make", [np.asarray, jnp.asarray])
def test_results_for_jax_own_their_memory(make):
    x = make(np.linspace(1, 2, 7, dtype=np.float32))
    results = [SFT(0, sft_data_size=x) for _ in range(20)]
    expected = np.array(results[0])
    for found in results:
        assert isinstance(found, jax.Array)
        memory = found.unsafe_buffer_pointer()
        twice = double(found)
        assert found.is_deleted()
        assert twice.unsafe_buffer_pointer() == memory
        np.testing.assert_array_equal(twice, 2 * expected)
    np.testing.assert_array_equal(SFT(0, sft_data_size=x), expected)
    slopes = jl.value_and_gradient(PARALLEL, [0, 1, 0], n=make(np.full(3, 1e9, np.float32)), p=2)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(slopes))


def test_results_for_numpy_can_be_read_only():
    found = SFT(0, sft_data_size=np.linspace(1, 2, 7))
    assert isinstance(found, np.ndarray)
    assert not found.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_padded_batches_of_the_device_move_nothing_unasked():
    """Where JAX is told to refuse arrays of NumPy."""
    n, p = (jnp.asarray(np.linspace(1, 2, 7, dtype=np.float32)) for _ in range(2))
    expected = np.array(PARALLEL("pile", n=n, p=p))
    with jax.transfer_guard("disallow"):
        found = PARALLEL("pile", n=n, p=p)
    np.testing.assert_array_equal(found, expected)


# On disk.


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """An empty folder for programs; the source is not changed while this test runs."""
    monkeypatch.setenv("JAXLAWS_CACHE", str(tmp_path / "programs"))
    monkeypatch.setattr(programs, "_source", lambda: "the source")
    programs.forget()
    yield tmp_path / "programs"
    programs.forget()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def again():
    """As in another process."""
    programs.forget()
    jax.clear_caches()


X = np.linspace(1, 2, 5)


def test_a_law_of_the_catalogue_is_neither_traced_nor_compiled_again(kept, monkeypatch):
    expected = [SFT(0, sft_data_size=X), jl.value_and_gradient(MIXTURE, [0, 1], proportions=np.full((2, 5), 0.2))]
    before = files(kept)
    assert sorted(Path(name).suffix for name in before) == [".index"] * 2 + [".program"] * 2
    again()
    monkeypatch.setattr(programs, "_compiled", None)
    found = [SFT(0, sft_data_size=X), jl.value_and_gradient(MIXTURE, [0, 1], proportions=np.full((2, 5), 0.2))]
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert_same(found, expected)
    assert files(kept) == before


SCRIPT = """
import sys
import numpy as np
import jaxlaws as jl
from jaxlaws import programs

assert programs._source() is not None
programs._compiled = None  # nothing may be lowered
found = jl.value_and_gradient(jl.laws["sft"], 0, sft_data_size=np.linspace(1, 2, 5))
np.savez(sys.argv[1], value=found[0], slope=found[1].sft_data_size)
"""


def test_another_process_loads_what_this_one_compiled(tmp_path, monkeypatch):
    if programs._source() is None:
        pytest.skip("the source was changed since it was imported")
    monkeypatch.setenv("JAXLAWS_CACHE", str(tmp_path / "programs"))
    programs.forget()
    value, slope = jl.value_and_gradient(SFT, 0, sft_data_size=X)
    assert files(tmp_path / "programs")
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "found.npz")], check=True, cwd=tmp_path)
    with np.load(tmp_path / "found.npz") as found:
        assert_same([found["value"], found["slope"]], [value, slope.sft_data_size])


def test_functions_of_a_user_are_told_apart_by_what_they_compute(kept, compilations):
    one, other = own(), own(scale=3.0)
    assert one.fn.__qualname__ == other.fn.__qualname__
    first, second = (np.array(law(0, sft_data_size=X)) for law in (one, other))
    np.testing.assert_allclose(second, 3 * first, rtol=1e-14)
    before = files(kept)
    assert [Path(name).suffix for name in before] == [".program"] * 2, "found by what they are lowered to alone"
    again()
    assert_same(other(0, sft_data_size=X), second)
    assert_same(own(scale=3.0)(0, sft_data_size=X), second)
    assert_same(own()(0, sft_data_size=X), first)
    assert files(kept) == before
    SFT(0, sft_data_size=X)
    both = dataclasses.replace(SFT, fn=one.fn)
    assert_same(both(0, sft_data_size=X), first)


def test_a_changed_function_of_the_same_name_is_not_mistaken_for_it(kept, monkeypatch):
    """As where a file with a law is edited from run to run."""

    def edited(scale):
        module = types.ModuleType("edited_law")
        exec(f"def law(c, x):\n    return {scale} * c.c0 * x.num_params", module.__dict__)
        monkeypatch.setitem(sys.modules, "edited_law", module)
        return dataclasses.replace(PARALLEL, fn=module.law)("pile", n=X, p=X)

    first = np.array(edited(1))
    again()
    assert_same(edited(2), 2 * first)
    assert_same(edited(1), first)
    assert not [name for name in files(kept) if name.endswith(programs.INDEX)]


def test_inputs_of_a_user_are_told_apart_from_those_of_the_catalogue(kept):
    @jl.record
    class Inputs:
        sft_data_size: jl.Scalar = jl.var("tokens", unit="tokens")

    expected = np.array(SFT(0, sft_data_size=X))
    law = dataclasses.replace(SFT, inputs=Inputs, fallback=None)
    assert_same(law(0, sft_data_size=X), expected)
    assert sum(name.endswith(programs.INDEX) for name in files(kept)) == 1


def test_dtypes_sizes_and_settings_have_programs_of_their_own(kept):
    single = X.astype(np.float32)
    for enabled in (False, True):
        with jax.enable_x64(enabled):
            for x in (single, X, np.tile(X, 2)):
                SFT(0, sft_data_size=x)
    before = files(kept)
    assert sum(name.endswith(programs.PROGRAM) for name in before) >= 3
    assert sum(name.endswith(programs.INDEX) for name in before) == 4, "the setting is up to the dtype, but for float32"
    again()
    for enabled in (False, True):
        with jax.enable_x64(enabled):
            for x in (single, X, np.tile(X, 2)):
                found = SFT(0, sft_data_size=x)
                assert found.dtype == x.dtype
                assert isinstance(found, jax.Array) is (enabled or x is single)
                assert found.shape == x.shape
    assert files(kept) == before


def test_programs_of_others_are_not_kept(kept):
    SFT(0, sft_data_size=X)
    before = files(kept)
    np.testing.assert_array_equal(jax.jit(lambda x: x + 1)(np.ones(3, np.float32)), 2)
    np.testing.assert_array_equal(jax.jit(lambda x: SFT(0, sft_data_size=x))(np.ones(3, np.float32)).shape, 3)
    assert files(kept) == before
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize("damage", [lambda data: b"damaged", lambda data: data[:-9], lambda data: b""])
@pytest.mark.parametrize("suffix", ["index", "program"])
def test_damaged_files_are_passed_over_and_replaced(kept, suffix, damage):
    law = SFT
    expected = np.array(law(0, sft_data_size=X))
    whole = files(kept)
    (damaged,) = (path for path in kept.iterdir() if path.name.endswith(suffix))
    damaged.write_bytes(damage(damaged.read_bytes()))
    again()
    assert_same(law(0, sft_data_size=X), expected)
    assert files(kept).keys() == whole.keys()
    assert damaged.read_bytes() != damage(whole[damaged.name])
    again()
    assert_same(law(0, sft_data_size=X), expected)


def test_an_index_without_its_program_is_passed_over(kept):
    expected = np.array(SFT(0, sft_data_size=X))
    (program,) = kept.glob("*" + programs.PROGRAM)
    program.unlink()
    again()
    assert_same(SFT(0, sft_data_size=X), expected)
    assert program.exists()


def test_what_another_machine_or_version_compiled_is_not_used(kept, monkeypatch):
    expected = np.array(SFT(0, sft_data_size=X))
    before = files(kept)
    for name, value in (("_machine", lambda: ("another",)), ("_source", lambda: "another source")):
        again()
        with monkeypatch.context() as patch:
            patch.setattr(programs, name, value)
            assert_same(SFT(0, sft_data_size=X), expected)
        assert before.items() < files(kept).items(), name
        before = files(kept)


def test_files_that_were_not_used_for_the_longest_time_are_deleted(kept, monkeypatch):
    laws = [own(scale=scale) for scale in (1.0, 2.0, 3.0, 4.0, 5.0)]
    monkeypatch.setattr(programs, "MOST_KEPT", 3)
    names = []
    for law in laws[:3]:
        law(0, sft_data_size=X)
        names.append((files(kept).keys() - names).pop())
    for age, name in zip((30, 20, 10), names, strict=True):
        os.utime(kept / name, (time.time() - age,) * 2)
    again()
    laws[0](0, sft_data_size=X)  # is used again
    laws[3](0, sft_data_size=X)
    found = files(kept).keys()
    assert len(found) == 3
    assert {names[0], names[2]} < found
    laws[4](0, sft_data_size=X)
    assert len(files(kept)) == 3
    assert not [name for name in files(kept) if not name.endswith(programs.PROGRAM)], "no halves of files"


def test_a_source_that_was_changed_since_it_was_imported_is_no_name_for_programs(monkeypatch):
    source = programs._source.__wrapped__
    newest = max(file.stat().st_mtime for file in Path(programs.__file__).parent.rglob("*.py"))
    monkeypatch.setattr(programs, "IMPORTED", newest + 1)
    assert source() == source()
    assert isinstance(source(), str)
    monkeypatch.setattr(programs, "IMPORTED", newest - 1)
    assert source() is None


def test_without_a_source_programs_are_found_by_what_they_are_lowered_to(kept, monkeypatch):
    monkeypatch.setattr(programs, "_source", lambda: None)
    expected = np.array(SFT(0, sft_data_size=X))
    assert [Path(name).suffix for name in files(kept)] == [".program"]
    again()
    assert_same(SFT(0, sft_data_size=X), expected)
    assert len(files(kept)) == 1


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"JAXLAWS_CACHE": "/named", "XDG_CACHE_HOME": "/cache"}, "/named"),
        ({"JAXLAWS_CACHE": "", "XDG_CACHE_HOME": "/cache"}, None),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/jaxlaws"),
        ({"XDG_CACHE_HOME": ""}, "user/.cache/jaxlaws"),
        ({}, "user/.cache/jaxlaws"),
        ({"XDG_CACHE_HOME": "relative"}, None),
        ({"JAXLAWS_CACHE": "here"}, "here"),
    ],
)
def test_where_programs_are_kept(monkeypatch, variables, folder):
    for name in ("JAXLAWS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": os.path.abspath("user"), **variables}.items():
        monkeypatch.setenv(name, value)
    assert programs._folder() == (None if folder is None else Path(folder).absolute())


@pytest.mark.parametrize(
    ("name", "value"), [("enable_compilation_cache", False), ("compilation_cache_dir", "elsewhere")]
)
def test_nothing_is_kept_where_jax_is_told_what_to_keep(kept, name, value):
    before = getattr(jax.config, f"jax_{name}")
    expected = np.array(own()(0, sft_data_size=X))
    count = len(files(kept))
    again()
    jax.config.update(f"jax_{name}", value)
    try:
        assert programs._folder() is None
        assert_same(own(scale=1.0)(0, sft_data_size=X), expected)
    finally:
        jax.config.update(f"jax_{name}", before)
        reset_cache()  # or JAX goes on to keep programs there
    assert len(files(kept)) == count
    assert programs._folder() == kept


def test_a_folder_that_cannot_be_written_is_passed_over(tmp_path, monkeypatch):
    expected = np.array(SFT(0, sft_data_size=X))
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "programs"):
        monkeypatch.setenv("JAXLAWS_CACHE", str(folder))
        again()
        assert_same(SFT(0, sft_data_size=X), expected)
    assert sorted(os.listdir(tmp_path)) == ["file"]
    programs.forget()


def test_constants_and_groups_take_no_programs(compilations):
    """The first derivatives of a law in a process compile what they are computed by, and nothing else."""
    law, x = jl.laws["domain_mixture"], np.full((3, 5), 0.2)
    law = dataclasses.replace(law, fn=lambda c, x: c.coef_linear @ jnp.square(x.proportions))
    for verb in (jl.jacobian, jl.hessian):
        jax.clear_caches()
        with compilations() as count:
            verb(law, "70M", proportions=x)
        assert len(count) == 1, verb.__name__


def test_nan_in_a_prediction_is_an_error_where_jax_is_set_to_look_for_it():
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        SFT(0, sft_data_size=np.nan)
