"""What the tests of a law say of laws that are wrong."""

from __future__ import annotations

import dataclasses
import inspect
import re

import jax.numpy as jnp
import pytest

import jaxlaws as jl
from jaxlaws import testing
from jaxlaws.law import Source, as_dict, record, var, variables
from jaxlaws.testing import check_law

LAW = jl.laws["chinchilla"]
MIXTURE = jl.laws["domain_mixture"]
GROUP, ROW, LOSS = LAW.golden[0]


def wrong(**changes):
    return dataclasses.replace(LAW, **changes)


def changed(cls, **fields):
    """A record class with other or more fields."""
    body = {v.name: dataclasses.field(metadata={"var": v}) for v in variables(cls)} | fields
    made = type(cls.__name__, (), {"__doc__": cls.__doc__, "__annotations__": dict.fromkeys(body, jl.Scalar), **body})
    return record(made)


def with_var(cls, name, **changes):
    """A record class with one field described in another way."""
    (about,) = (v for v in variables(cls) if v.name == name)
    return changed(cls, **{name: dataclasses.field(metadata={"var": dataclasses.replace(about, **changes)})})


def with_coefs(cls, **values):
    """The law with other coefficients, some of which have other values."""
    groups = {name: cls(**as_dict(coefs) | values) for name, coefs in LAW.groups.items()}
    return wrong(coefs=cls, groups=groups, sources={})


def without_docstring():
    @record
    class Inputs:
        params: jl.Scalar = var("parameters", unit="parameters")
        tokens: jl.Scalar = var("tokens", unit="tokens")

    return Inputs


def undocumented(c, x):
    return c.E + x.params


class Plain:
    """Not a record."""


INPUTS = "params, tokens"
SAID = {
    "no advice": (wrong(advice=""), "advice is missing"),
    "title": (wrong(title="Loss"), "the title begins with a small letter"),
    "no reference": (wrong(source=Source(reference="")), "the source has no reference"),
    "no docstring of a record": (wrong(inputs=without_docstring()), "Inputs has no docstring"),
    "no docstring of the function": (wrong(fn=undocumented), "the function 'undocumented' has no docstring"),
    "unknown objective": (
        wrong(objective="huber"),
        "objective must be one of 'squared', 'relative', 'huber_log', not 'huber'",
    ),
    "unknown curvature": (
        wrong(curvature="concave"),
        "curvature must be one of '', 'convex', 'separable', not 'concave'",
    ),
    "no var": (
        wrong(inputs=changed(LAW.inputs, steps=dataclasses.field())),
        "Inputs does not describe 'steps': declare it with var(...)",
    ),
    "no record": (wrong(inputs=Plain), "is not a record: declare a class with @record"),
    "no description": (wrong(inputs=with_var(LAW.inputs, "tokens", description="")), "tokens has no description"),
    "alias of another input": (
        wrong(inputs=with_var(LAW.inputs, "tokens", aliases=("D", "params"))),
        "'params' is a name of params and again of tokens",
    ),
    "alias twice": (
        wrong(inputs=with_var(LAW.inputs, "tokens", aliases=("D", "D"))),
        "'D' is a name of tokens and again of tokens",
    ),
    "aliases are text": (
        wrong(inputs=with_var(LAW.inputs, "tokens", aliases="D")),
        "aliases of tokens must be a tuple of names, such as ('D',)",
    ),
    "alias of the output": (
        wrong(inputs=with_var(LAW.inputs, "tokens", aliases=("loss",))),
        "'loss' is a name of the input tokens and of an output",
    ),
    "coefficient of an input's name": (
        with_coefs(changed(LAW.coefs, tokens=var("weight")), tokens=1.0),
        "'tokens' is an input and a coefficient",
    ),
    "empty range": (wrong(inputs=with_var(LAW.inputs, "tokens", range=(2.0, 1.0))), "the range of tokens is empty"),
    "axis of no coefficient": (
        wrong(inputs=with_var(LAW.inputs, "tokens", shape=("domain",))),
        "tokens has axes 'domain', and the coefficients have none",
    ),
    "no columns": (
        dataclasses.replace(MIXTURE, inputs=with_var(MIXTURE.inputs, "proportions", columns="")),
        "proportions needs a name for each of its columns, as of columns='proportions_{}'",
    ),
    "groups are a list": (wrong(groups=[]), "groups must be a dict from names to Coefs, not []"),
    "group is a dict": (
        wrong(groups=LAW.groups | {"mine": {"E": 1.0}}),
        "group 'mine' must be a record, Coefs(...), not of type dict",
    ),
    "sources of no group": (wrong(sources={"mine": LAW.source}), "sources of no group: mine"),
    "vector for a number": (with_coefs(LAW.coefs, E=[1.0, 2.0]), "E of group 'hoffmann2022' must have 0 axes, not 1"),
    "text for a number": (with_coefs(LAW.coefs, E="1.7"), "E of group 'hoffmann2022' must hold numbers"),
    "out of bounds": (
        with_coefs(LAW.coefs, alpha=-0.5),
        "alpha of group 'hoffmann2022' is -0.5, not within its bounds 0 to 10",
    ),
    "shared and not the same": (
        with_coefs(with_var(LAW.coefs, "E", shared=True)),
        "E is shared, and differs between groups",
    ),
    "golden entry of two": (
        wrong(golden=((ROW, LOSS),)),
        "golden[0] must be a triple: group, inputs by column, outputs by column",
    ),
    "golden group": (
        wrong(golden=(*LAW.golden, ("mine", ROW, LOSS))),
        "golden[4]: no group 'mine'; known: hoffmann2022, hoffmann2022_printed, besiroglu2024, sardana2024",
    ),
    "golden coefficients": (
        wrong(golden=((3, ROW, LOSS),)),
        "golden[0]: the coefficients must be a record, Coefs(...), or the name of a group, not of type int",
    ),
    "golden input": (
        wrong(golden=((GROUP, {"params": 1e9}, LOSS),)),
        "golden[0]: input column 'tokens' is missing",
    ),
    "golden input too many": (
        wrong(golden=((GROUP, ROW | {"steps": 1.0}, LOSS),)),
        f"golden[0]: input column 'steps' is unknown; known: {INPUTS}",
    ),
    "golden output": (wrong(golden=((GROUP, ROW, {"los": 2.0}),)), "golden[0]: output column 'loss' is missing"),
    "falls with what is no input": (
        wrong(falls_with=("parms", "tokens")),
        f"falls_with: no input 'parms'; known: {INPUTS}",
    ),
    "rises with what is no input": (wrong(rises_with=("E",)), f"rises_with: no input 'E'; known: {INPUTS}"),
    "falls with text": (wrong(falls_with="tokens"), "falls_with must be a tuple of names, such as ('tokens',)"),
}


@pytest.mark.parametrize("name", SAID)
def test_what_a_law_says_of_itself_is_tested_first_and_alone(name):
    law, message = SAID[name]
    with pytest.raises(AssertionError) as caught:
        check_law(law)
    head, _, text = str(caught.value).partition("\n\n")
    assert head == f"{law.name} fails the first of {len(testing.checks())} tests, and the others were not run"
    assert text.startswith("says what it is:\n")
    assert message in text


def fails(check, law, message):
    with pytest.raises(AssertionError) as caught:
        check(law)
    assert message in str(caught.value)


def test_golden_values_need_all_digits():
    found = LOSS["loss"]
    digits = round(found, 9)
    assert 1e-12 < abs(digits / found - 1) < 1e-9
    message = f"golden[0] has {{'loss': {digits}}}, and golden values need all digits: the law gives {{'loss': "
    message += str(found)[:-2]
    fails(testing.agrees_with_its_golden_values, wrong(golden=((GROUP, ROW, {"loss": digits}),)), message)


def test_the_formula_is_that_of_the_function():
    less = wrong(formula="E + A*params**-alpha + B*tokens**-beta*(1 + 1e-9)")
    fails(
        testing.agrees_with_its_formula, less, "the function (actual) and the formula (desired), group 'hoffmann2022'"
    )
    unknown = wrong(formula="E + C*params**-alpha")
    message = "the formula cannot be evaluated: NameError: name 'C' is not defined"
    fails(testing.agrees_with_its_formula, unknown, message)


def test_what_falls_does_not_rise():
    check = testing.falls_and_rises_as_it_says
    law = wrong(rises_with=("params",))
    fails(check, law, "rises_with: not all outputs of group 'hoffmann2022' rise with 'params' everywhere")
    law = wrong(falls_with=("tokens",), fn=lambda c, x: c.E + c.A * x.params)
    fails(check, law, "falls_with: not all outputs of group 'hoffmann2022' fall with 'tokens' everywhere")


NOT_CONVEX = "curvature is 'convex', and an output is not, for "
ELEMENTS = "curvature is 'separable', and an output is no sum of functions of one element, for group '160M'"
MIXED = "curvature is 'separable', and an output, or a sum of outputs, is convex in an element here and concave there"
BENT = {
    "concave": ("convex", lambda c, x: c.intercept + jnp.log(x.proportions + 1), NOT_CONVEX + "group '160M'"),
    "with a concave kink": (
        "convex",
        lambda c, x: c.intercept + jnp.minimum(x.proportions, 0.3),
        NOT_CONVEX + "group '160M'",
    ),
    "convex only as published": (
        "convex",
        lambda c, x: c.intercept[0] * jnp.exp(x.proportions),
        NOT_CONVEX + "other coefficients within their bounds",
    ),
    "a product": ("separable", lambda c, x: c.intercept * x.proportions.prod(), ELEMENTS),
    "a sine": ("separable", lambda c, x: c.intercept + jnp.sin(6 * x.proportions), MIXED),
    "kinks up and down": (
        "separable",
        lambda c, x: c.intercept + jnp.clip(x.proportions, 0.1, 0.2),
        MIXED,
    ),
    "sums of outputs": (
        "separable",
        lambda c, x: c.intercept + jnp.array([1, -1, 0, 0, 0]) * x.proportions[0] ** jnp.array([2, 3, 1, 1, 1]),
        MIXED,
    ),
}


@pytest.mark.parametrize("name", BENT)
def test_curvature_is_as_it_says(name):
    curvature, fn, message = BENT[name]
    law = dataclasses.replace(MIXTURE, fn=fn, curvature=curvature)
    fails(testing.curvature_is_as_it_says, law, message)
    testing.curvature_is_as_it_says(dataclasses.replace(law, curvature=""))


@pytest.mark.parametrize("curvature", ["convex", "separable"])
@pytest.mark.parametrize("fn", [lambda c, x: jnp.maximum(x.proportions, 0.3), lambda c, x: x.proportions**2])
def test_curvature_that_is_as_it_says(curvature, fn):
    testing.curvature_is_as_it_says(dataclasses.replace(MIXTURE, fn=fn, curvature=curvature))


def raising(c, x):
    """The loss of one configuration."""
    return c.E + x.parameters


def test_what_the_function_raises_is_told_once_and_with_its_line():
    with pytest.raises(AssertionError) as caught:
        check_law(wrong(fn=raising))
    head, *paragraphs = str(caught.value).split("\n\n")
    assert re.fullmatch(rf"test_check_law fails 1\d of {len(testing.checks())} tests", head)
    line = inspect.getsourcelines(raising)[1] + 2
    error = f"AttributeError: 'Inputs' object has no attribute 'parameters' ({__file__}, line {line})"
    (paragraph,) = (p for p in paragraphs if error in p)
    titles = paragraph.partition(":\n")[0].split(", ")
    assert {"agrees with its formula", "a batch is a loop", "pickles"} & set(titles) == {
        "agrees with its formula",
        "a batch is a loop",
    }
    assert str(caught.value).count("has no attribute") == 1


def test_all_that_is_wrong_is_told():
    with pytest.raises(TypeError, match="a law such as"):
        check_law("chinchilla")
    law = wrong(formula="E + A*params**-alpha + B*tokens**-beta + 1e-9", rises_with=("params",))
    with pytest.raises(AssertionError, match=f"chinchilla fails 2 of {len(testing.checks())} tests") as caught:
        check_law(law)
    assert "\n\nagrees with its formula:\n" in str(caught.value)
    assert "\n\nfalls and rises as it says:\n" in str(caught.value)
