"""The list-of-dicts door against the published code."""

from __future__ import annotations

import math
import re

import jax
import numpy as np
import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import PUBLISHED, columns

import jaxlaws as jl
from jaxlaws.columns import from_columns

NAN, INF = math.nan, math.inf


def rows_of(table):
    return [dict(zip(table, row, strict=True)) for row in zip(*(c.tolist() for c in table.values()), strict=True)]


def values(predicted):
    return np.array([list(row.values()) for row in predicted])


@pytest.mark.parametrize("law", PUBLISHED, indirect=True)
def test_agrees_with_the_source_over_12_orders_of_magnitude(law, source):
    theirs, ours = source(law.name), jl.sldbench.law(law.name)
    for seed, group in enumerate([*law.groups, "no such group"]):
        rows = rows_of(columns(law, 100, seed=seed, decades=6))
        expected, found = theirs(rows, group), ours(rows, group)
        assert [list(row) for row in found] == [list(row) for row in expected]
        np.testing.assert_allclose(values(found), values(expected), rtol=1e-12)


@pytest.mark.parametrize("law", PUBLISHED, indirect=True)
def test_arrays_agree_with_the_source(law, source):
    for seed, group in enumerate(law.groups):
        table = columns(law, 50, seed=seed, decades=6)
        expected = values(source(law.name)(rows_of(table), group))
        x = from_columns(law, list(table.values()))
        np.testing.assert_allclose(np.asarray(law(group, x)).reshape(expected.shape), expected, rtol=1e-12)


@pytest.mark.parametrize("law", PUBLISHED, indirect=True)
def test_provenance_is_that_of_the_published_page(law):
    page = SHARED / "seeds" / f"{law.name}.txt"
    if not page.exists():
        pytest.skip("needs the published pages of the laws")
    text = page.read_text()
    facts = dict(re.findall(r"^(Agent|Model|Best R²|Mean R²|Min R²|Runs): (.*)$", text, re.MULTILINE))
    s = law.source
    assert [s.agent, s.model, s.runs] == [facts["Agent"], facts["Model"], int(facts["Runs"])]
    assert [s.r2_best, s.r2_mean, s.r2_min] == [float(facts[f"{name} R²"]) for name in ("Best", "Mean", "Min")]
    assert s.task == text.splitlines()[2]


@pytest.mark.parametrize("law", PUBLISHED, indirect=True)
def test_coefficients_are_those_published_to_the_last_digit(law):
    code = SHARED / "seeds" / f"{law.name}.py"
    if not code.exists():
        pytest.skip("needs the published code of the laws")
    number = r"-?\d+\.\d+(?:[eE][-+]?\d+)?"
    published = {float(text) for text in re.findall(number, code.read_text())}
    for coefs in law.groups.values():
        for v in jl.variables(law.coefs):
            assert set(np.ravel(getattr(coefs, v.name)).tolist()) <= published, v.name


NUMBERS = st.one_of(
    st.floats(1e-6, 1e15),
    st.sampled_from([0, 1, -1, 0.0, -0.0, 1.0, 1e-12, 1e-18, -1e-6, -1e-7, INF, -INF, NAN, 10**20, True]),
)
VALUES = st.one_of(NUMBERS, st.sampled_from([None, "3.5", "x", "nan", [], np.float32(2.5), np.int64(7)]))
KEYS = {
    "parallel": ["num_params", "n_params", "params", "n", "parallel_size", "p", "degree", "mp_size", "world_size"],
}


@pytest.mark.parametrize("name", PUBLISHED)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_does_as_the_source_does_on_anything(name, source, data):
    theirs, ours = source(name), jl.sldbench.law(name)
    law = jl.laws[name]
    keys = [*KEYS.get(name, law.input_columns), "unrelated"]
    usual = st.dictionaries(st.sampled_from(keys), NUMBERS, min_size=len(law.input_columns) - 1)
    rows = data.draw(st.lists(st.one_of(usual, st.dictionaries(st.sampled_from(keys), VALUES)), min_size=1, max_size=4))
    group = data.draw(st.sampled_from([*list(law.groups)[:5], "no such group", "", None, 3]))
    try:
        expected = theirs(rows, group)
    except Exception as error:
        with pytest.raises(type(error)):
            ours(rows, group)
        return
    found = ours(rows, group)
    assert [list(r) for r in found] == [list(r) for r in expected]
    assert all(type(value) is float for value in found[0].values())
    # Far from any mixture, where proportions are in the thousands, its terms cancel.
    sizes = [abs(float(row.get(c, 0))) for row in rows for c in law.input_columns] if name == "domain_mixture" else []
    atol = 1e-12 * max(filter(math.isfinite, sizes), default=0)
    np.testing.assert_allclose(values(found), values(expected), rtol=1e-12, atol=atol)


def test_nothing_in_nothing_out(law):
    assert jl.sldbench.law(law.name)([], next(iter(law.groups))) == []


@pytest.mark.parametrize("law", PUBLISHED, indirect=True)
def test_always_in_float64_without_touching_the_setting(law, golden, quick):
    rows, outputs = golden[law.name]["rows"], golden[law.name]["outputs"]
    group, expected = next(iter(outputs.items()))
    for enabled in (False, True):
        with jax.enable_x64(enabled):
            found = jl.sldbench.law(law.name)(rows, group)
            assert jax.config.jax_enable_x64 is enabled
        np.testing.assert_allclose(values(found), expected, rtol=1e-12)
        assert all(type(value) is float for row in found for value in row.values())


def test_many_rows_are_each_row(law, quick):
    rows = rows_of(columns(law, 50_000))
    predict = jl.sldbench.law(law.name)
    group = next(iter(law.groups))
    found = predict(rows, group)
    assert len(found) == len(rows)
    for i in (0, 1, 16383, 16384, 16385, 49_999):
        np.testing.assert_allclose(values([found[i]]), values(predict([rows[i]], group)), rtol=1e-14)


def test_errors_tell_the_row():
    good = {"num_params": 1e9, "parallel_size": 2}
    with pytest.raises(KeyError, match=r"row 20000 has no 'parallel_size' \(nor 'p'"):
        jl.sldbench.law("parallel")([good] * 20_000 + [{"num_params": 1e9}], "pile")
    bad = {"proportion_domain_1": 1.0, "proportion_domain_3": -0.5}
    with pytest.raises(ValueError, match=r"not defined at proportion_domain_3 = -0.5 \(row 20001\)"):
        jl.sldbench.law("domain_mixture")([{}] * 20_001 + [bad], "70M")


def test_takes_any_sequence_of_mappings():
    from types import MappingProxyType

    row = {"sft_data_size": 1000}
    expected = jl.sldbench.law("sft")([row], "x")
    assert jl.sldbench.law("sft")((MappingProxyType(r) for r in [row]), "x") == expected


def test_an_unknown_law_is_named():
    with pytest.raises(jl.UnknownNameError, match="did you mean 'parallel'"):
        jl.sldbench.law("paralell")
