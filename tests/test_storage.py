"""Coefficients in files: what was written reads back, and what is wrong with a file is told."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import jaxlaws as jl
from jaxlaws.fitting.runs import Runs

SFT, MIXTURE, PARALLEL = jl.laws["sft"], jl.laws["domain_mixture"], jl.laws["parallel"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fit_of(law, coefs, stderr, **facts):
    """A fit with these coefficients, to three runs, the last of which does not count."""
    law = dataclasses.replace(law, groups=coefs)
    shapes = {v.name: tuple(law.sizes[axis] for axis in v.shape) for v in jl.variables(law.inputs)}
    inputs = law.inputs(
        **{name: np.array([1.5, 3, 9])[(...,) + (None,) * len(s)] + np.zeros(s) for name, s in shapes.items()}
    )
    weights = np.array([1.0, 2.0, 0.0])
    runs = Runs(law=law, groups=tuple(coefs), group=np.zeros(3, int), inputs=inputs, measured=inputs, weights=weights)
    each = {"value": 0.5, "converged": True, "share": 1.0, "flags": ()} | facts
    of_groups = {key: dict.fromkeys(coefs, value) for key, value in each.items()}
    known = {"law": law, "coefs": coefs, "stderr": stderr, "objective": "squared", "runs": runs, **of_groups}
    return jl.Fit(**dict.fromkeys(field.name for field in dataclasses.fields(jl.Fit)) | known)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def fits(draw):
    law = draw(st.sampled_from([SFT, MIXTURE]))
    size = draw(st.integers(1, 4))

    def record(numbers):
        shapes = {v.name: (size,) * len(v.shape) for v in jl.variables(law.coefs)}
        return law.coefs(**{k: draw(arrays(float, s, elements=numbers) if s else numbers) for k, s in shapes.items()})

    groups = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    coefs = {name: record(st.floats(allow_nan=False, allow_infinity=False)) for name in groups}
    facts = {
        "value": draw(st.floats()),
        "converged": draw(st.booleans()),
        "share": draw(st.floats(0, 1)),
        "flags": draw(st.lists(NAMES, max_size=2).map(tuple)),
    }
    return fit_of(law, coefs, {name: record(st.floats()) for name in groups}, **facts)


def bits(record):
    return {name: np.asarray(value).tobytes() for name, value in vars(record).items()}


def plain(value):
    """What JSON holds of a value: nothing for what is not finite."""
    if isinstance(value, (list, tuple)):
        return list(map(plain, value))
    return None if isinstance(value, float) and not math.isfinite(value) else value


@settings(deadline=None, max_examples=100)
@given(fit=fits(), named=st.booleans())
def test_what_is_written_reads_back_bit_for_bit(fit, named):
    fit.save("coefs.json")
    assert os.listdir() == ["coefs.json"]
    found = jl.read_coefs(Path("coefs.json"), fit.law if named else None)
    assert list(found) == list(fit.coefs)
    for name, record in found.items():
        assert type(record) is fit.law.coefs
        assert bits(record) == bits(fit.coefs[name])
        assert all(isinstance(value, (float, np.ndarray)) for value in vars(record).values())
    content = json.loads(Path("coefs.json").read_text(), parse_constant=pytest.fail)  # no Infinity, no NaN
    assert (content["law"], content["objective"]) == (fit.law.name, "squared")
    for name, entry in content["groups"].items():
        assert entry["coefs"] == jl.as_dict(fit.coefs[name])
        assert entry["stderr"] == {key: plain(value) for key, value in jl.as_dict(fit.stderr[name]).items()}
        for key in ("value", "converged", "share", "flags"):
            assert entry[key] == plain(getattr(fit, key)[name])
    law = jl.read_law("coefs.json", fit.law)
    first, *others = fit.coefs
    ranges = {name: ends for name, ends in law.ranges_of(first).items() if "/" not in name}
    assert [*ranges] == [v.name for v in jl.variables(law.inputs)]
    assert all([np.unique(end).tolist() for end in ends] == [[1.5], [3.0]] for ends in ranges.values())
    assert all(law.ranges_of(name) == {} for name in others), "which have no runs"


def test_a_plain_file():
    Path("coefs.json").write_text(
        '\ufeff{"law": {"L_inf": 1, "A": 2.5, "alpha": 1e-1}, "groups": {"A": 0, "alpha": 0, "L_inf": -0.0}}'
    )
    found = jl.read_coefs("coefs.json", SFT)
    assert {name: vars(record) for name, record in found.items()} == {
        "law": {"L_inf": 1.0, "A": 2.5, "alpha": 0.1},
        "groups": {"L_inf": 0.0, "A": 0.0, "alpha": 0.0},
    }
    assert jl.read_law("coefs.json", SFT).input_columns == SFT.input_columns
    assert jl.read_law("coefs.json", SFT).ranges_of("law") == {}
    with pytest.raises(
        jl.DataError, match=r"^coefs.json: the file does not say which law its coefficients are of; give law=$"
    ):
        jl.read_coefs("coefs.json")


def sft(**changes):
    return json.dumps({"law": "sft", "groups": {"a": {"coefs": {"L_inf": 1, "A": 2, "alpha": 0.5} | changes}}})


def mixture(intercept=(1, 2), coef_linear=((1, 2), (3, 4)), coef_log=((1, 2), (3, 4)), **others):
    first = {"intercept": [1, 2], "coef_linear": [[1, 2], [3, 4]], "coef_log": [[1, 2], [3, 4]]}
    second = {"intercept": intercept, "coef_linear": coef_linear, "coef_log": coef_log} | others
    return json.dumps({"law": "domain_mixture", "groups": {"a": {"coefs": first}, "b": {"coefs": second}}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "this is not JSON: Expecting value"),
        ('{"law": "sft"', "this is not JSON: "),
        ("[" * 100_000, "this is not JSON: "),
        ("[]", "an object is needed, not a list of 0"),
        ("3", "an object is needed, not 3"),
        ('{"groups": {}}', "the file does not say which law its coefficients are of; give law="),
        ('{"law": "sft"}', "there is no 'groups'"),
        ('{"law": "sft", "groups": {}}', "there are no groups"),
        ('{"law": "sft", "groups": [1]}', "groups: an object is needed, not a list of 1"),
        ('{"law": null, "groups": {}}', "law: a name is needed, not null"),
        ('{"law": "sfd", "groups": {}}', "unknown law 'sfd'; did you mean 'sft'?; for another one, give law="),
        ('{"law": "sft", "law": "moe", "groups": {}}', "'law' is given twice"),
        ('{"law": "sft", "groups": {"a": 1}}', "group 'a': an object is needed, not 1"),
        ('{"law": "sft", "groups": {"a": {}, "a": {}}}', "groups: 'a' is given twice"),
        ('{"law": "sft", "groups": {"a": {"coef": {}}}}', "group 'a': there is no 'coefs'"),
        (sft()[:-4] + ', "A": 4}}}}', "group 'a', coefs: 'A' is given twice"),
        (sft(L_inf="1"), "group 'a', L_inf: a number is needed, not '1'"),
        (sft(A=True), "group 'a', A: a number is needed, not true"),
        (sft(A=None), "group 'a', A: a number is needed, not null"),
        (sft(A=[1.0]), "group 'a', A: a number is needed, not a list of 1"),
        (sft(A=math.nan), "group 'a', A: a finite number is needed, not NaN"),
        (sft(A=10**400), "group 'a', A: a finite number is needed, not 1000"),
        (sft(alhpa=1), "group 'a': unknown coefficient 'alhpa'; did you mean 'alpha'?"),
        (sft(beta=1).replace('"alpha": 0.5, ', ""), "group 'a': unknown coefficient 'beta'; sft has L_inf, A, alpha"),
        (sft().replace(', "alpha": 0.5', ""), "group 'a': coefficient 'alpha' is missing"),
        (mixture(intercept=3), "group 'b', intercept: a list of numbers is needed, not 3"),
        (mixture(intercept=[]), "group 'b', intercept: a list of numbers is needed, not a list of 0"),
        (mixture(intercept=[1, "x"]), "group 'b', intercept: a number is needed, not 'x'"),
        (mixture(intercept=[1, 2, 3]), "group 'b', intercept: the shape is (3,), where (2,) is needed"),
        (mixture(coef_log=[1, 2]), "group 'b', coef_log: a list of numbers is needed, not 1"),
        (mixture(coef_log=[[1, 2], [3]]), "group 'b', coef_log: the rows have different lengths"),
        (mixture(coef_log=[[1, 2]]), "group 'b', coef_log: the shape is (1, 2), where (2, 2) is needed"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(text, words):
    Path("coefs.json").write_text(text)
    with pytest.raises(jl.DataError, match=f"^coefs.json: {re.escape(words)}"):
        jl.read_coefs("coefs.json")


def test_a_file_of_another_law():
    Path("coefs.json").write_text(sft())
    with pytest.raises(jl.DataError, match=r"^coefs.json: these are coefficients of 'sft', not of 'parallel'$"):
        jl.read_coefs("coefs.json", PARALLEL)


@pytest.mark.parametrize("ends", [3, [1], [1, 2, 3], [1, None], {"a": 1}])
def test_a_range_that_is_none(ends):
    Path("coefs.json").write_text(sft()[:-1] + f', "range": {{"sft_data_size": {json.dumps(ends)}}}}}')
    with pytest.raises(jl.DataError, match=r"^coefs.json: range, sft_data_size: "):
        jl.read_law("coefs.json", SFT)


def test_a_file_that_is_no_text():
    Path("coefs.json").write_bytes(b'{"\xff": 1}')
    with pytest.raises(jl.DataError, match=r"^coefs.json: this is not JSON, but no text at all"):
        jl.read_coefs("coefs.json")
    with pytest.raises(FileNotFoundError):
        jl.read_coefs("none.json")


def test_a_file_is_written_whole_or_not_at_all(monkeypatch):
    coefs = {"a": SFT.coefs(L_inf=1.0, A=2.0, alpha=0.5)}
    fit_of(SFT, coefs, coefs).save("coefs.json")
    before = Path("coefs.json").read_text()
    with pytest.raises(OSError, match="No space left on device"):
        fit_of(SFT, coefs, coefs).save("/dev/full")
    with pytest.raises(TypeError):
        dataclasses.replace(fit_of(SFT, coefs, coefs), coefs={"a": None}).save("coefs.json")
    with pytest.raises(FileNotFoundError):
        fit_of(SFT, coefs, coefs).save("no/folder.json")
    assert Path("coefs.json").read_text() == before
    assert os.listdir() == ["coefs.json"]
