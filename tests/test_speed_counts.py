"""What makes laws fast, counted in the compiled programs, since the time itself is noise on a shared machine."""

from __future__ import annotations

import inspect
import re

import jax
import numpy as np
import pytest

import jaxlaws as jl
from jaxlaws import evaluation
from jaxlaws.arguments import arguments

LAWS = list(jl.laws)
ROWS = 1 << 12

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="counts operations of CPU programs")


def program(law, verb, group=None):
    x = {
        v.name: np.full((ROWS, *(law.sizes[axis] for axis in v.shape)), 0.2, np.float32)
        for v in jl.variables(law.inputs)
    }
    arrays, _, _ = arguments(law, next(iter(law.groups)) if group is None else group, x, {}, None)
    return evaluation._outermost("cpu").lower(verb, law, *arrays).compile().as_text()


def count(text, operation):
    return len(re.findall(rf"= \S+ {operation}\(", text))


def powers(law):
    return len(re.findall(r"\bpower\(", inspect.getsource(law.fn)))


@pytest.mark.parametrize("name", LAWS)
def test_each_power_is_computed_once_and_as_polynomials(name):
    law = jl.laws[name]
    for verb in (evaluation._value, evaluation._value_and_gradient):
        text = program(law, verb)
        assert count(text, "round-nearest-even") == powers(law), "a power rounds once"
        for slow in ("power", "log", "exponential", "custom-call", "while", "call"):
            assert count(text, slow) == 0, slow


@pytest.mark.parametrize("name", LAWS)
def test_nothing_is_scattered_gathered_or_copied(name):
    law = jl.laws[name]
    for verb in (evaluation._value, evaluation._gradient, evaluation._value_and_gradient):
        text = program(law, verb)
        for slow in ("scatter", "gather", "transpose", "copy"):
            assert not re.search(rf"\[{ROWS}\S* {slow}\(", text), (verb, slow)


def test_the_logarithms_of_a_mixture_are_part_of_one_loop():
    text = program(jl.laws["domain_mixture"], evaluation._value)
    assert count(text, "fusion") == 1
    assert count(text, "divide") == 0, "a quotient would be kept, and make two loops of one"


@pytest.mark.parametrize("name", LAWS)
def test_one_program_for_all_groups_and_no_way_back_to_the_host(name):
    law = jl.laws[name]
    groups = list(law.groups)[:3]
    x = {v.name: jax.numpy.full((ROWS, *(law.sizes[axis] for axis in v.shape)), 0.2) for v in jl.variables(law.inputs)}
    law(groups[0], **x)
    compiled = evaluation._outermost("cpu")._cache_size()
    with jax.transfer_guard("disallow"):
        for group in groups[:1]:
            law(group, **x)
    for group in groups:
        law(group, **x)
    assert evaluation._outermost("cpu")._cache_size() == compiled
