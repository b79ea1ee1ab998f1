"""Tests of a law, the same for those of the catalogue and for your own: `check_law(LAW)` in a test of your project."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import importlib
import inspect
import json
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxlaws import evaluation
from jaxlaws.arguments import check_law as check_is_law
from jaxlaws.arguments import number
from jaxlaws.columns import from_columns
from jaxlaws.evaluation import elasticity, gradient, hessian, jacobian, predict, value_and_gradient
from jaxlaws.fitting.objectives import OBJECTIVES
from jaxlaws.law import Law, Var, as_dict, stack, variables
from jaxlaws.numerics import plain
from jaxlaws.programs import QUICK, Program
from jaxlaws.ranges import beyond, ranges_for

__all__ = ["check_law", "checks", "sample"]

# Most tests are of a batch of so many rows, which smaller ones are filled up to: a verb is compiled for it once.
ROWS = 8
MANY = 1000  # rows that find what is rare
VERBS: tuple[Callable[..., Any], ...] = (predict, gradient, jacobian, hessian, elasticity)


def check_law(law: Law) -> None:
    """Test a law: what it says of itself, its numbers, its derivatives, and that it works with every verb.

    The function must agree with the text of its formula, which NumPy evaluates, and with its golden values, in float64
    to 1e-12 and in float32 to 1e-5, also six decades beyond the range that was fitted; with finite differences; with
    itself in batches, under `jit`, `vmap`, `grad` and `scan`, and for rows of different groups. One trace must do for
    all groups, dtypes must be kept, NaN must give NaN, floors must be flat, what falls with an input must do so, and
    what is said to be convex must be.

    Golden values therefore need all digits: where some are missing, the message has them. A law takes ten seconds or
    so, as some thirty programs are compiled.

    Args:
        law: The law.

    Raises:
        AssertionError: It fails; the message has a paragraph for each thing that is wrong, headed by the tests that
            found it. What the law says of itself is tested first, and where it fails, nothing else is.

    Example:
        >>> import jaxlaws as jl
        >>> from jaxlaws.testing import check_law
        >>> check_law(jl.laws["chinchilla"])
    """
    check_is_law(law)
    first, *others = checks()
    if text := _failure(law, first):
        skipped = f"{law.name} fails the first of {len(checks())} tests, and the others were not run"
        raise AssertionError(f"{skipped}\n\n{_title(first)}:\n{text}")
    failures: dict[str, list[str]] = {}
    for check in others:
        if text := _failure(law, check):
            failures.setdefault(text, []).append(_title(check))
    if failures:
        count = sum(map(len, failures.values()))
        paragraphs = [f"{', '.join(titles)}:\n{text}" for text, titles in failures.items()]
        raise AssertionError("\n\n".join([f"{law.name} fails {count} of {len(checks())} tests", *paragraphs]))


def _title(check: Callable[[Law], None]) -> str:
    return check.__name__.replace("_", " ")


def _failure(law: Law, check: Callable[[Law], None]) -> str:
    """What is wrong, and at which line of the law's own file where that raised it; nothing where all is well."""
    try:
        check(law)
    except Exception as error:  # a law may fail in any way
        text: str = str(error).strip() if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        code = getattr(inspect.unwrap(law.fn), "__code__", None)
        frames = [f for f in traceback.extract_tb(error.__traceback__) if code and f.filename == code.co_filename]
        return f"{text} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else text or type(error).__name__
    return ""


def checks() -> tuple[Callable[[Law], None], ...]:
    """The tests, each a function of a law that raises where it fails.

    Example:
        >>> import jaxlaws as jl
        >>> from jaxlaws import testing
        >>> [check(jl.laws["moe"]) for check in testing.checks() if "formula" in check.__name__]
        [None, None]
    """
    return (
        says_what_it_is,
        agrees_with_its_formula,
        agrees_with_its_golden_values,
        is_exact_in_float32,
        gradient_agrees_with_finite_differences,
        gradient_agrees_with_differences_of_the_formula,
        derivatives_agree_with_each_other,
        weights_pick_an_output,
        jit_is_no_jit,
        a_batch_is_a_loop,
        composes_with_transformations,
        mixed_groups_are_a_loop_over_groups,
        one_trace_for_all_groups,
        python_numbers_do_not_retrace,
        dtype_is_kept,
        pickles,
        coefficients_survive_json,
        a_grid_is_its_points,
        flat_and_finite_below_its_floor,
        nan_gives_nan,
        falls_and_rises_as_it_says,
        curvature_is_as_it_says,
        knows_the_range_it_was_fitted_on,
        errors_have_a_covariance,
    )


def sample(law: Law, count: int, *, seed: int = 0, decades: float = 0.0, dtype: Any = np.float64) -> dict[str, Any]:
    """Random configurations of a law, as columns.

    Args:
        law: A law.
        count: How many.
        seed: Which.
        decades: By how much they reach beyond the range that was fitted, on each side.
        dtype: Of the columns.

    Returns:
        An array per column of the inputs.

    Example:
        >>> import jaxlaws as jl
        >>> from jaxlaws import testing
        >>> {name: column.shape for name, column in testing.sample(jl.laws["sft"], 3).items()}
        {'sft_data_size': (3,)}
    """
    random = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for v in variables(law.inputs):
        names = v.column_names(law.sizes)
        if v.total is not None:
            values = random.dirichlet(np.ones(len(names)), count) * v.total
            values = values * 10.0 ** random.uniform(-decades, 0, values.shape) if decades else values
            values = values * (v.total / values.sum(axis=1, keepdims=True))
        else:
            ends = np.asarray(v.range or _near_golden(law, names), np.float64)
            if positive := bool((ends > 0).all()):
                ends = np.log10(ends)
            low, high = ends + np.multiply.outer([-1, 1], np.full(np.shape(ends[0]), decades))
            values = random.uniform(low, high, (count, len(names)))
            values = 10.0**values if positive else values
        found.update(zip(names, values.T.astype(dtype), strict=True))
    return found


def _near_golden(law: Law, names: tuple[str, ...]) -> tuple[Any, Any]:
    """A range of columns about their golden values, for laws of unknown range."""
    assert law.golden, f"{law.name}: neither the range of {names[0]} is known, nor a golden value"
    values = np.array([[inputs[name] for name in names] for _, inputs, _ in law.golden])
    return values.min(axis=0) / 2, values.max(axis=0) * 2


def evaluated(law: Law, coefs: Any, inputs: Any, row: int) -> Any:
    """The formula of a law for one row, evaluated by NumPy alone."""
    values: dict[str, Any] = {v.name: np.asarray(getattr(coefs, v.name), np.float64) for v in variables(law.coefs)}
    for v in variables(law.inputs):
        value = np.asarray(getattr(inputs, v.name), np.float64)[row]
        values[v.name] = value if v.floor is None else np.maximum(value, v.floor)
    functions = {name: getattr(np, name) for name in ("log", "exp", "expm1", "sqrt", "sum", "maximum", "minimum")}
    try:
        with np.errstate(divide="ignore"):
            return np.asarray(eval(law.formula, {"__builtins__": {}}, functions | values))
    except Exception as error:  # as it is text, it may hold anything
        raise AssertionError(f"the formula cannot be evaluated: {type(error).__name__}: {error}") from error


def groups_of(law: Law) -> dict[str, Any]:
    """The groups of a law, or the coefficients that its golden values are for."""
    examples = {id(coefs): coefs for coefs, *_ in law.golden}
    return dict(law.groups) or {f"golden {i}": coefs for i, coefs in enumerate(examples.values())}


@functools.lru_cache(maxsize=64)  # a copy is traced anew
def with_groups(law: Law) -> Law:
    """The law, with these as its groups."""
    return law if law.groups else dataclasses.replace(law, groups=groups_of(law))


def _inputs(law: Law, count: int, **options: Any) -> Any:
    return from_columns(law, list(sample(law, count, **options).values()))


def _first(law: Law) -> Any:
    return next(iter(groups_of(law).values()))


def _row(inputs: Any, row: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[row], inputs)


def _weights(law: Law) -> Any:
    """Weights of outputs that have no mean: of size 1 on the first row of the inputs."""
    if law.output_shape != ("output",):
        return None
    scale = np.abs(np.asarray(predict(law, _first(law), _inputs(law, 1)))[0])
    return 1 / (scale * len(scale))


def _options(verb: Callable[..., Any], weights: Any) -> dict[str, Any]:
    """The weights, for verbs that take them."""
    return {} if verb in (predict, jacobian) else {"weights": weights}


@functools.lru_cache(maxsize=64)
def _found(law: Law, verb: Callable[..., Any]) -> Any:
    """What a verb gives for the first group and the batch that most tests are of."""
    return jax.tree.map(np.asarray, verb(law, _first(law), _inputs(law, ROWS), **_options(verb, _weights(law))))


def _in_parts(verb: Callable[..., Any], law: Law, coefs: Any, x: Any, **options: Any) -> Any:
    """A verb for many rows, `ROWS` at a time."""
    count = len(jax.tree.leaves(x)[0])
    starts = range(0, count, ROWS)
    parts = [verb(law, coefs, _rows(x, start, start + ROWS), **options) for start in starts]
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *parts)


def _rows(inputs: Any, start: int, stop: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[start:stop], inputs)


def _leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _assert_equal(a: Any, b: Any, **options: Any) -> None:
    for x, y in zip(_leaves(a), _leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **{"rtol": 1e-13, "atol": 1e-300, **options})


def says_what_it_is(law: Law) -> None:
    """Title, question, advice, source, golden values, descriptions, units, names, coefficients, and what is claimed."""
    for name in ("title", "question", "advice", "formula", "golden"):
        assert getattr(law, name), f"{name} is missing"
    assert law.title[0].islower(), "the title begins with a small letter"
    assert law.source.reference, "the source has no reference"
    assert law.fn.__doc__, f"the function {getattr(law.fn, '__name__', law.fn)!r} has no docstring"
    _assert_one_of("objective", law.objective, OBJECTIVES)
    _assert_one_of("curvature", law.curvature, ("", "convex", "separable"))
    for cls in (law.inputs, law.coefs, law.outputs):
        variables(cls)  # or a TypeError that tells what to do
        signature = f"{cls.__name__}("  # dataclasses write it where there is no docstring
        assert not (cls.__doc__ or signature).startswith(signature), f"{cls.__name__} has no docstring"
    _examples_are_records(law)  # before anything asks for sizes
    _variables_are_described(law)
    _names_are_of_one_input_each(law)
    _coefficients_are_as_described(law)
    for index, (_, inputs, outputs) in enumerate(law.golden):
        _assert_names(f"golden[{index}]: input column", inputs, law.input_columns)
        _assert_names(f"golden[{index}]: output column", outputs, law.output_columns)
    for claim in ("falls_with", "rises_with"):
        fields = getattr(law, claim)
        assert not isinstance(fields, str), f"{claim} must be a tuple of names, such as ({fields!r},)"
        for field in fields:
            known = [v.name for v in variables(law.inputs)]
            assert field in known, f"{claim}: no input {field!r}; known: {', '.join(known)}"


def _assert_one_of(what: str, given: str, known: Iterable[str]) -> None:
    assert given in known, f"{what} must be one of {', '.join(map(repr, known))}, not {given!r}"


def _assert_names(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    missing = [name for name in known if name not in given]
    unknown = [name for name in given if name not in known]
    assert not missing, f"{what} {', '.join(map(repr, missing))} is missing"
    assert not unknown, f"{what} {', '.join(map(repr, unknown))} is unknown; known: {', '.join(known)}"


def _examples_are_records(law: Law) -> None:
    """The coefficients of groups, and of golden values."""
    record = law.coefs.__name__
    assert isinstance(law.groups, Mapping), f"groups must be a dict from names to {record}, not {law.groups!r}"
    assert set(law.sources) <= set(law.groups), f"sources of no group: {', '.join(set(law.sources) - set(law.groups))}"
    for name, coefs in law.groups.items():
        assert isinstance(name, str), f"the name of a group must be text, not {name!r}"
        what = f"group {name!r} must be a record, {record}(...), not of type {type(coefs).__name__}"
        assert isinstance(coefs, law.coefs), what
    for index, entry in enumerate(law.golden):
        what = f"golden[{index}] must be a triple: group, inputs by column, outputs by column"
        assert isinstance(entry, tuple), what
        assert [isinstance(each, Mapping) for each in entry] == [False, True, True], what
        group = entry[0]
        if isinstance(group, str):
            known = ", ".join(law.groups) or f"none, so that it needs {record}(...) in place of a name"
            assert group in law.groups, f"golden[{index}]: no group {group!r}; known: {known}"
        else:
            what = f"golden[{index}]: the coefficients must be a record, {record}(...), or the name of a group"
            assert isinstance(group, law.coefs), f"{what}, not of type {type(group).__name__}"
    for name, coefs in groups_of(law).items():
        for v in variables(law.coefs):
            axes = np.ndim(getattr(coefs, v.name))
            assert axes == len(v.shape), f"{v.name} of group {name!r} must have {len(v.shape)} axes, not {axes}"


def _variables_are_described(law: Law) -> None:
    for cls in (law.inputs, law.coefs, law.outputs):
        for v in variables(cls):
            assert v.description, f"{v.name} has no description"
            assert v.unit, f"{v.name} has no unit"
    for v in (*variables(law.inputs), *variables(law.outputs)):
        known = ", ".join(map(repr, law.sizes)) or "none"
        what = f"{v.name} has axes {', '.join(map(repr, v.shape))}, and the coefficients have {known}"
        assert set(v.shape) <= set(law.sizes), what
        size = law.sizes[v.shape[0]] if v.shape else 1
        what = f"{v.name} needs a name for each of its columns, as of columns='{v.name}_{{}}'"
        assert len(set(v.column_names(law.sizes))) == size, what
    for v in variables(law.inputs):
        assert v.range is None or np.all(np.less(*v.range)), f"the range of {v.name} is empty"


def _names_are_of_one_input_each(law: Law) -> None:
    """Names, aliases and columns."""
    owners: dict[str, str] = {}
    for v in variables(law.inputs):
        assert not isinstance(v.aliases, str), f"aliases of {v.name} must be a tuple of names, such as ({v.aliases!r},)"
        for name in (v.name, *v.aliases, *(v.column_names(law.sizes) if v.shape else ())):
            assert name not in owners, f"{name!r} is a name of {owners[name]} and again of {v.name}"
            owners[name] = v.name
    for name in law.output_columns:
        assert name not in owners, f"{name!r} is a name of the input {owners[name]} and of an output"
    for v in variables(law.coefs):
        assert owners.get(v.name) != v.name, f"{v.name!r} is an input and a coefficient, and the formula is of both"


def _coefficients_are_as_described(law: Law) -> None:
    """Their shapes, their bounds, and which are the same in all groups."""
    for v in variables(law.coefs):
        shape, (low, high) = tuple(law.sizes[axis] for axis in v.shape), v.bounds
        for name, coefs in groups_of(law).items():
            value = np.asarray(number(getattr(coefs, v.name), f"{v.name} of group {name!r}"))
            assert value.shape == shape, f"{v.name} of group {name!r} must have shape {shape}, not {value.shape}"
            beyond = value[~((value >= low) & (value <= high))]
            what = f"{v.name} of group {name!r} is {', '.join(map(str, beyond))}"
            assert not beyond.size, f"{what}, not within its bounds {low:g} to {high:g}"
        values = [getattr(coefs, v.name) for coefs in law.groups.values()]
        same = all(np.array_equal(value, values[0]) for value in values)
        assert same or not v.shared, f"{v.name} is shared, and differs between groups"


def agrees_with_its_formula(law: Law) -> None:
    """In the fitted range, and six decades beyond it."""
    for decades in (0, 6):
        x = _inputs(law, ROWS, decades=decades)
        for name, coefs in groups_of(law).items():
            expected = np.array([evaluated(law, coefs, x, row) for row in range(ROWS)])
            about = f"the function (actual) and the formula (desired), group {name!r}"
            np.testing.assert_allclose(predict(law, coefs, x), expected, rtol=1e-12, err_msg=about)


def agrees_with_its_golden_values(law: Law) -> None:
    """Published or independently computed numbers."""
    for index, (group, row, outputs) in enumerate(law.golden):
        x = from_columns(law, [np.array([row[name]], np.float64) for name in law.input_columns])
        found = dict(zip(law.output_columns, np.ravel(predict(law, group, x)).tolist(), strict=True))
        close = np.isclose(list(found.values()), [outputs[name] for name in found], rtol=1e-12, atol=0)
        what = f"golden[{index}] has {dict(outputs)}, and golden values need all digits"
        assert close.all(), f"{what}: the law gives {found}"


def is_exact_in_float32(law: Law) -> None:
    """To 1e-5, as many decades beyond the fitted range as it says; near 0, of what the output usually is."""
    single = list(sample(law, 1000, decades=law.decades, dtype=np.float32).values())
    double = [column.astype(np.float64) for column in single]
    for coefs in groups_of(law).values():
        found = predict(law, coefs, from_columns(law, single))
        assert found.dtype == np.float32
        exact = np.asarray(predict(law, coefs, from_columns(law, double)))
        changes_sign = exact.min() < 0 < exact.max()
        near = 1e-5 * float(np.median(np.abs(exact))) if changes_sign else 1e-36
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=near)


def gradient_agrees_with_finite_differences(law: Law) -> None:
    """First and second derivatives by the inputs, and first ones by the coefficients; forward and in reverse."""
    coefs, x = _in_float64(list(groups_of(law).values())[-1], _inputs(law, ROWS))
    weights, random = _weights(law), np.random.default_rng(0)
    # Positive inputs in logarithms, in which laws are smooth; others as they are. Sums of proportions change with them.
    at, record_of = _flat(x)
    positive = (at > 0).all(axis=0)
    along, other = random.normal(size=(2, *at.shape))
    aside = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), coefs)

    def moved(step: float) -> np.ndarray:
        found: np.ndarray = np.where(positive, at * np.exp(step * along), at + step * along)
        return found

    def slope(inputs: np.ndarray) -> np.ndarray:
        return _flat(evaluation._call(law, evaluation._gradient, coefs, record_of(inputs), {}, weights, checked=True))[
            0
        ]

    def scaled_slope(inputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.where(positive, inputs, 1.0) * slope(inputs)
        return found

    def total(outputs: np.ndarray) -> np.ndarray:
        each = outputs.reshape(ROWS, -1)
        found: np.ndarray = each.mean(axis=1) if weights is None else each @ weights
        return found

    unit = np.where(positive, at, 1.0)
    change, change_other = unit * along, unit * other
    each = np.concatenate(
        [leaf.reshape(ROWS, len(law.output_columns), -1) for leaf in _leaves(jacobian(law, coefs, x))], -1
    )
    curved = np.einsum("nij,nj->ni", _flat_hessian(law, hessian(law, coefs, x, weights=weights)), change)
    with jax.enable_x64(True):
        found = DIRECTIONAL(law, coefs, x, record_of(change), record_of(change_other), aside, weights)
        found = jax.tree.map(np.asarray, found)

    def value(inputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = evaluation._call(law, evaluation._value, coefs, record_of(inputs), {}, checked=True)
        return found

    by_inputs = _differences(lambda step: value(moved(step)), 5e-5)
    by_coefs = _differences(lambda step: predict(law, jax.tree.map(lambda c, a: c + step * a, coefs, aside), x), 5e-7)
    of_slope = _differences(lambda step: scaled_slope(moved(step)), 5e-5)
    of_slope = of_slope - np.where(positive, change * slope(at), 0.0)

    def same(what: str, a: Any, b: Any, atol: float = 1e-6) -> None:
        about = f"{what} (actual) and finite differences (desired)"
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=atol, err_msg=about)

    same("jacobian", np.einsum("noi,ni->no", each, change), by_inputs.reshape(ROWS, -1))
    same("gradient", (slope(at) * change).sum(axis=1), total(by_inputs))
    same("hessian", unit * curved, of_slope)
    same("second derivatives, forward", total(found["forward twice"]), (other * of_slope).sum(axis=1))
    for mode in ("reverse of forward", "reverse twice"):
        same(f"second derivatives, {mode}", unit * _flat(found[mode])[0], of_slope)
    same("derivatives by coefficients, forward", found["by coefs"], by_coefs, atol=1e-5)
    pairs = zip(_leaves(found["by coefs in reverse"]), _leaves(aside), strict=True)
    in_reverse = sum((leaf * a).reshape(ROWS, -1).sum(axis=1) for leaf, a in pairs)
    same("derivatives by coefficients, in reverse", in_reverse, total(by_coefs), atol=1e-5)


def _differences(fn: Callable[[float], Any], step: float) -> np.ndarray:
    """The derivative of a function of a step, at 0."""
    found: np.ndarray = (np.asarray(fn(step)) - np.asarray(fn(-step))) / (2 * step)
    return found


def _directional(law: Law, coefs: Any, x: Any, along: Any, other: Any, aside: Any, weights: Any) -> dict[str, Any]:
    """Derivatives that no verb takes, along directions of inputs and coefficients, for each row."""

    def of_row(row: Any, along: Any, other: Any) -> dict[str, Any]:
        def outputs(row: Any) -> Any:
            return law.fn(coefs, row)

        def total(row: Any) -> Any:
            return _weighted(outputs(row), weights)

        def forward(fn: Callable[..., Any]) -> Callable[..., Any]:
            return lambda row: jax.jvp(fn, (row,), (along,))[1]

        def reverse(row: Any) -> Any:
            parts = jax.tree.map(jnp.vdot, jax.grad(total)(row), along)
            return sum(jax.tree.leaves(parts))

        return {
            "forward twice": jax.jvp(forward(outputs), (row,), (other,))[1],
            "reverse of forward": jax.grad(forward(total))(row),
            "reverse twice": jax.grad(reverse)(row),
            "by coefs": jax.jvp(lambda coefs: law.fn(coefs, row), (coefs,), (aside,))[1],
            "by coefs in reverse": jax.grad(lambda coefs: _weighted(law.fn(coefs, row), weights))(coefs),
        }

    with plain():  # whose derivatives are taken in the same way
        found: dict[str, Any] = jax.vmap(of_row)(x, along, other)
        return found


def _flat(inputs: Any) -> tuple[np.ndarray, Callable[[np.ndarray], Any]]:
    """The numbers of each row of a record of inputs, and the way back."""
    leaves, tree = jax.tree.flatten(inputs)
    parts = [np.reshape(leaf, (len(leaf), -1)) for leaf in leaves]
    ends = np.cumsum([part.shape[1] for part in parts])[:-1]

    def record_of(numbers: np.ndarray) -> Any:
        cut = np.split(numbers, ends, axis=1)
        return jax.tree.unflatten(tree, [c.reshape(np.shape(leaf)) for c, leaf in zip(cut, leaves, strict=True)])

    return np.hstack(parts), record_of


def _flat_hessian(law: Law, second: Any) -> np.ndarray:
    """Second derivatives as a matrix for each row."""
    sizes = {v.name: law.sizes[v.shape[0]] if v.shape else 1 for v in variables(law.inputs)}

    def block(a: str, b: str) -> np.ndarray:
        return np.reshape(getattr(getattr(second, a), b), (-1, sizes[a], sizes[b]))

    return np.concatenate([np.concatenate([block(a, b) for b in sizes], axis=2) for a in sizes], axis=1)


def gradient_agrees_with_differences_of_the_formula(law: Law) -> None:
    """Which shares no code with the function."""
    x = _inputs(law, ROWS)
    coefs, weights = _first(law), _weights(law)
    found = _found(law, gradient)
    for v in variables(law.inputs):
        values = np.asarray(getattr(x, v.name))
        for index in np.ndindex(values.shape):

            def f(step: float, index: Any = index, values: np.ndarray = values, name: str = v.name) -> Any:
                moved = values.copy()
                moved[index] *= 1 + step
                outputs = evaluated(law, coefs, dataclasses.replace(x, **{name: moved}), index[0])
                return np.mean(outputs) if weights is None else np.sum(weights * outputs)

            h = 1e-3
            slope = (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)
            moved = np.asarray(getattr(found, v.name))[index] * values[index]
            np.testing.assert_allclose(moved, slope, rtol=1e-7, atol=1e-9, err_msg=v.name)


def derivatives_agree_with_each_other(law: Law) -> None:
    """Value, gradient, Jacobian, Hessian and elasticity."""
    x = _inputs(law, ROWS)
    value, slope = _found(law, value_and_gradient)
    outputs, each, weights = _found(law, predict), _found(law, jacobian), _weights(law)
    if law.output_shape:
        shares = np.full(outputs.shape[-1], 1 / outputs.shape[-1]) if weights is None else weights
        outputs = outputs @ shares
        each = jax.tree.map(lambda j: np.einsum("no...,o->n...", j, shares), each)
    _assert_equal(value, outputs, rtol=1e-14 if weights is None else 1e-13)
    _assert_equal(slope, _found(law, gradient))
    _assert_equal(slope, each, atol=1e-12)
    relative = _found(law, elasticity)
    for v in variables(law.inputs):
        g, e, values = (getattr(r, v.name) for r in (slope, relative, x))
        np.testing.assert_allclose(e, values * g / value[(...,) + (None,) * len(v.shape)], rtol=1e-12, err_msg=v.name)
    second = _found(law, hessian)
    for v in variables(law.inputs):
        for w in variables(law.inputs):
            a, b = getattr(getattr(second, v.name), w.name), getattr(getattr(second, w.name), v.name)
            np.testing.assert_allclose(a, np.swapaxes(b, -1, -2) if v.shape and w.shape else b, rtol=1e-12)


def weights_pick_an_output(law: Law) -> None:
    """Weights of 0 and 1 give the derivatives of one output."""
    x = _inputs(law, ROWS)
    coefs, count = _first(law), len(law.output_columns)
    if not law.output_shape:
        with _raises(TypeError, "takes no weights"):
            gradient(law, coefs, x, weights=[1.0])
        return
    if law.output_shape == ("output",):
        with _raises(TypeError, "give weights"):
            gradient(law, coefs, x)
    outputs, each = _found(law, predict), _found(law, jacobian)
    for i, weights in enumerate(np.eye(count)):
        value, slope = value_and_gradient(law, coefs, x, weights=weights)
        np.testing.assert_allclose(value, outputs[:, i], rtol=1e-13)
        _assert_equal(slope, jax.tree.map(lambda j, i=i: j[:, i], each), atol=1e-13)
    many = gradient(law, coefs, x, weights=np.random.default_rng(0).random((7, 1, count)))
    assert {leaf.shape[:2] for leaf in _leaves(many)} == {(7, ROWS)}


@contextlib.contextmanager
def _raises(kind: type[Exception], text: str) -> Iterator[None]:
    try:
        yield
    except kind as error:
        if text not in str(error):
            raise AssertionError(f"{text!r} is not in {str(error)!r}") from error
    else:
        raise AssertionError(f"no {kind.__name__} with {text!r}")


def jit_is_no_jit(law: Law) -> None:
    """For the first three groups."""
    x = _inputs(law, ROWS)
    for coefs in list(groups_of(law).values())[:3]:
        with jax.disable_jit(), plain():
            one_by_one = predict(law, coefs, x)
        np.testing.assert_allclose(predict(law, coefs, x), one_by_one, rtol=1e-14)


def a_batch_is_a_loop(law: Law) -> None:
    """For every verb."""
    looped = _looped(law)
    for verb in VERBS:
        _assert_equal(_found(law, verb), looped[verb.__name__], rtol=1e-12)


def composes_with_transformations(law: Law) -> None:
    """Called within jit, vmap, scan, grad, jacfwd and hessian of JAX."""
    weights, looped = _weights(law), _looped(law)
    coefs, x = _in_float64(_first(law), _inputs(law, ROWS))
    with jax.enable_x64(True):
        found = COMPOSED(law, coefs, x, weights)
        for transformation in ("jit", "vmap", "scan"):
            _assert_equal(found[transformation], _found(law, predict))
        with plain():
            again = dataclasses.replace(law)
            one = jax.tree.map(jnp.asarray, _row(x, 0))
            by_jax = jax.grad(lambda row: _weighted(again(coefs, row), weights))(one)
        _assert_equal(_row(looped["grad"], 0), by_jax)
        _assert_equal(_found(law, gradient), looped["grad"], atol=1e-13)
        _assert_equal(looped["jacfwd"], _found(law, jacobian), atol=1e-13)
        _assert_equal(looped["jax.hessian"], _found(law, hessian), rtol=1e-10, atol=1e-12)
        finite = all(np.isfinite(leaf).all() for leaf in _leaves(found["grad"]))
        assert finite, "a derivative by coefficients is not finite"


@functools.lru_cache(maxsize=4)
def _looped(law: Law) -> dict[str, Any]:
    """What `_alone` gives for each row of the batch that most tests are of."""
    coefs, x = _in_float64(_first(law), _inputs(law, ROWS))
    with jax.enable_x64(True):
        rows = [ALONE(law, coefs, _row(x, row), _weights(law)) for row in range(ROWS)]
    looped: dict[str, Any] = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    return looped


def _in_float64(*trees: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), trees)


# With powers and logarithms of XLA, which compile in a fraction of the time; and for a copy of the law, as JAX keeps
# what it traces of one.


def _alone(law: Law, coefs: Any, row: Any, weights: Any) -> dict[str, Any]:
    """For one configuration, all verbs, and derivatives by JAX of what calls the law."""
    law = dataclasses.replace(law)

    def total(row: Any) -> Any:
        return _weighted(law(coefs, row), weights)

    with plain():
        return {
            **{verb.__name__: verb(law, coefs, row, **_options(verb, weights)) for verb in VERBS},
            "grad": jax.grad(total)(row),
            "jacfwd": jax.jacfwd(lambda row: law(coefs, row))(row),
            "jax.hessian": jax.hessian(total)(row),
        }


def _composed(law: Law, coefs: Any, x: Any, weights: Any) -> dict[str, Any]:
    """For a batch, calls of a law within jit and other transformations."""
    again = dataclasses.replace(law)
    with plain():
        found = {
            "vmap": jax.vmap(lambda row: again(coefs, row))(x),
            "scan": jax.lax.scan(lambda c, row: (c, again(coefs, row)), 0, x)[1],
            "grad": jax.grad(lambda coefs: _weighted(again(coefs, x), weights))(coefs),
        }
    return {"jit": law(coefs, x), **found}


def _weighted(outputs: Any, weights: Any) -> Any:
    """One number of outputs, as the verbs make of it: their weighted sum, or their mean."""
    return outputs.mean() if weights is None else (outputs * weights).sum()


def mixed_groups_are_a_loop_over_groups(law: Law) -> None:
    """Rows of different groups in one call, by id, by name, and stacked."""
    law = with_groups(law)
    names = list(law.groups)
    ids = np.random.default_rng(1).integers(len(names), size=ROWS)
    x, weights = _inputs(law, ROWS), _weights(law)
    loop = [predict(law, names[g], _row(x, row)) for row, g in enumerate(ids)]
    _assert_equal(predict(law, ids, x), np.stack(loop))
    _assert_equal(predict(law, [names[g] for g in ids], x), np.stack(loop))
    _assert_equal(predict(law, np.array(names)[ids], x), np.stack(loop))
    by_id, by_name = (gradient(law, g, x, weights=weights) for g in (ids, [names[g] for g in ids]))
    _assert_equal(by_id, by_name)
    each = np.stack([predict(law, name, x) for name in names])
    _assert_equal(np.stack([predict(law, [name] * ROWS, x) for name in names]), each)
    _assert_equal(predict(law, stack(law.groups.values()), _row(x, 0)), each[:, 0])


def _counted(law: Law) -> tuple[Law, list[int]]:
    """The law, and a list that grows by one with each trace."""
    traces: list[int] = []

    @functools.wraps(law.fn)
    def fn(coefs: Any, x: Any) -> Any:
        traces.append(1)
        return law.fn(coefs, x)

    return dataclasses.replace(law, fn=fn), traces


def one_trace_for_all_groups(law: Law) -> None:
    """And a second one for rows of different groups."""
    law, traces = _counted(with_groups(law))
    x = _inputs(law, ROWS)
    for group in law.groups:
        predict(law, group, x)
    first = next(iter(law.groups))
    predict(law, first, jax.tree.map(lambda leaf: leaf[::-1], x))
    predict(law, law.coefs(**as_dict(law.groups[first])), x)
    assert len(traces) == 1, f"{len(traces)} traces for one shape"
    predict(law, [first] * ROWS, x)
    predict(law, np.zeros(ROWS, int), x)
    assert len(traces) == 2, f"{len(traces) - 1} traces for rows of different groups"


def python_numbers_do_not_retrace(law: Law) -> None:
    """Nor do numbers of NumPy or JAX."""
    law, traces = _counted(law)
    row, coefs = _row(_inputs(law, 1), 0), _first(law)
    for kind in (float, np.float32, jnp.float32, lambda value: jnp.asarray(value, "float32")):
        predict(law, coefs, jax.tree.map(lambda leaf, kind=kind: _each(kind, leaf), row))
    assert len(traces) == 1, f"{len(traces)} traces for numbers"


def _each(kind: Callable[[Any], Any], leaf: Any) -> Any:
    return kind(leaf) if np.ndim(leaf) == 0 else [kind(x) for x in leaf]


def dtype_is_kept(law: Law) -> None:
    """Whatever JAX is set to."""
    coefs, weights = _first(law), _weights(law)
    again = dataclasses.replace(law)  # JAX keeps what it traces of it
    for enabled in (True, False):
        for dtype in (jnp.bfloat16, np.float32, np.float64):
            x = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), _inputs(law, ROWS))
            with jax.enable_x64(enabled):
                found = [predict(law, coefs, x)]
                if dtype is np.float64:
                    found += [verb(law, coefs, x, weights=weights) for verb in (gradient, hessian)]
                else:  # JAX tells without compiling, and of a gradient too: its derivatives have the dtype that it has
                    with plain():
                        found.append(jax.eval_shape(functools.partial(hessian, again, coefs, weights=weights), x))
                assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(dtype)}
                assert (jax.dtypes.canonicalize_dtype(float) == np.float64) is enabled


def pickles(law: Law) -> None:
    """To itself, where it is the law of its module."""
    again = pickle.loads(pickle.dumps(law))
    if getattr(importlib.import_module(law.fn.__module__), "LAW", None) is law:
        assert again is law
    assert again.fn is law.fn
    assert copy.deepcopy(law) is law
    coefs = _first(law)
    _assert_equal(pickle.loads(pickle.dumps(coefs)), coefs)


def coefficients_survive_json(law: Law) -> None:
    """To the last bit."""
    for coefs in groups_of(law).values():
        again = law.coefs(**json.loads(json.dumps(as_dict(coefs))))
        for v in variables(law.coefs):
            assert np.array_equal(getattr(again, v.name), getattr(coefs, v.name)), v.name


def a_grid_is_its_points(law: Law) -> None:
    """Inputs on axes of their own give what all their combinations give."""
    fields = variables(law.inputs)
    count, size = len(fields), 4 if len(fields) < 4 else 2
    x = _inputs(law, size)
    axes = {}
    for axis, v in enumerate(fields):
        values = getattr(x, v.name)
        shape = [1] * count
        shape[axis] = size
        axes[v.name] = values.reshape(*shape, *values.shape[1:])
    full = {name: np.broadcast_to(values, [size] * count + [*values.shape[count:]]) for name, values in axes.items()}
    points = law.inputs(**{name: values.reshape(-1, *values.shape[count:]) for name, values in full.items()})
    coefs, weights = _first(law), _weights(law)
    with jax.enable_x64(True):
        slope, second = DERIVATIVES(law, *_in_float64(coefs, law.inputs(**axes)), weights)
    for verb, of_axes in ((predict, predict(law, coefs, **axes)), (gradient, slope), (hessian, second)):
        assert {leaf.shape[:count] for leaf in _leaves(of_axes)} == {(size,) * count}
        listed = jax.tree.map(lambda leaf: np.reshape(leaf, (-1, *leaf.shape[count:])), of_axes)
        _assert_equal(listed, _in_parts(verb, law, coefs, points, **_options(verb, weights)), rtol=1e-12)


def _derivatives(law: Law, coefs: Any, inputs: Any, weights: Any) -> tuple[Any, Any]:
    law = dataclasses.replace(law)
    with plain():
        return gradient(law, coefs, inputs, weights=weights), hessian(law, coefs, inputs, weights=weights)


def flat_and_finite_below_its_floor(law: Law) -> None:
    """Where an input has a floor."""
    one, coefs, weights = _inputs(law, 1), _first(law), _weights(law)
    rows = jax.tree.map(lambda leaf: np.repeat(leaf, 3, axis=0), one)
    for v in variables(law.inputs):
        if v.floor is None:
            continue
        x = dataclasses.replace(rows, **{v.name: np.array([0.0, -1.0, -np.inf])})
        outputs = np.asarray(predict(law, coefs, x))
        assert np.isfinite(outputs).all(), f"not finite below the floor of {v.name}"
        assert (outputs == outputs[0]).all(), f"not flat below the floor of {v.name}"
        assert not np.any(getattr(gradient(law, coefs, x, weights=weights), v.name))
        at = dataclasses.replace(one, **{v.name: np.array([max(v.floor, 1.0)])})
        slope = np.asarray(getattr(gradient(law, coefs, at, weights=weights), v.name))
        assert slope != 0, f"on its floor, {v.name} has the derivative from above"


def nan_gives_nan(law: Law) -> None:
    """Unless the law takes NaN as its floor, as it does less."""
    one, coefs = _inputs(law, 1), _first(law)
    for v in variables(law.inputs):
        found = np.asarray(predict(law, coefs, _filled(one, v, np.nan)))[0]
        if v.floor is None or not np.isfinite(found).all():
            assert np.isnan(found).any(), f"NaN in {v.name} gives {found}"
            assert np.isnan(found).all() or law.output_shape == ("output",), f"NaN in {v.name} gives {found}"


def _filled(row: Any, v: Var, value: float) -> Any:
    return dataclasses.replace(row, **{v.name: np.full(np.shape(getattr(row, v.name)), value)})


def falls_and_rises_as_it_says(law: Law) -> None:
    """All outputs, with each input that is said to be monotone, in the fitted range."""
    x = _inputs(law, 200)
    for name, coefs in groups_of(law).items():
        slopes = _in_parts(jacobian, law, coefs, x)
        for verb, sign, fields in (("fall", -1, law.falls_with), ("rise", 1, law.rises_with)):
            for field in fields:
                holds = (sign * np.asarray(getattr(slopes, field)) > 0).all()
                assert holds, f"{verb}s_with: not all outputs of group {name!r} {verb} with {field!r} everywhere"


def curvature_is_as_it_says(law: Law) -> None:
    """By second derivatives, for other coefficients within their bounds too; and by chords, which see kinks."""
    if not law.curvature:
        return
    groups = groups_of(law)
    others = "other coefficients within their bounds, which var(bounds=...) sets"
    labels = [*(f"group {name!r}" for name in groups), *[others] * 20]
    coefs = stack([*groups.values(), *_other_coefs(law, 20)])
    count = len(law.output_columns)
    weights = np.eye(count)
    if law.curvature == "separable":  # what is minimised is a sum of outputs, with weights of any sign
        weights = np.vstack([weights, np.random.default_rng(0).normal(size=(10, count))])
    a, b = (_inputs(law, 1000, seed=seed) for seed in (0, 1))
    _, record_of = ravel_pytree(_row(a, 0))
    a, b = (np.hstack([leaf.reshape(1000, -1) for leaf in jax.tree.leaves(x)]) for x in (a, b))

    @jax.jit
    def outputs(c: Any, rows: Any) -> Any:
        return jax.vmap(lambda row: jnp.ravel(law.fn(c, record_of(row))))(rows)

    @jax.jit
    def bends(c: Any, rows: Any) -> Any:
        return jax.vmap(jax.hessian(lambda row: weights @ jnp.ravel(law.fn(c, record_of(row)))))(rows)

    def chords(c: Any, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far the means of the outputs at both ends lie above the outputs between, and their rounding."""
        at_a, at_b, between = (np.asarray(outputs(c, rows)) for rows in (a, ends, (a + ends) / 2))
        rounding = 1e-14 * (np.abs(at_a) + np.abs(at_b)) / 2
        return ((at_a + at_b) / 2 - between) @ weights.T, rounding @ np.abs(weights).T

    for i, label in enumerate(labels):
        c = jax.tree.map(lambda leaf, i=i: leaf[i], coefs)
        with jax.enable_x64(True):
            second = np.asarray(bends(c, a[:200]))
            ends = [b] if law.curvature == "convex" else [np.where(column, b, a) for column in np.eye(a.shape[1])]
            above = [chords(c, each) for each in ends] if i < len(groups) else []
        finite = np.isfinite(second).all((1, 2, 3))  # other coefficients may be too large for float64
        assert finite.all() or i >= len(groups), f"a second derivative is not finite, for {label}"
        second, x = second[finite], a[:200][finite]
        if law.curvature == "convex":
            scaled = second * x[:, None, :, None] * x[:, None, None, :]  # of inputs of different units
            least, size = np.linalg.eigvalsh(scaled).min(-1), np.abs(scaled).max((-1, -2))
            convex = (least >= -1e-12 * size).all() and all((high >= -near).all() for high, near in above)
            assert convex, f"curvature is 'convex', and an output is not, for {label}"
        else:
            diagonal = np.diagonal(second, axis1=-2, axis2=-1)
            alone = (second == np.eye(a.shape[1]) * diagonal[..., None]).all()
            assert alone, f"curvature is 'separable', and an output is no sum of functions of one element, for {label}"
            one_way = [(diagonal >= 0).all(0) | (diagonal <= 0).all(0)]
            one_way += [(high >= -near).all(0) | (high <= near).all(0) for high, near in above]
            what = "an output, or a sum of outputs, is convex in an element here and concave there"
            assert all(each.all() for each in one_way), f"curvature is 'separable', and {what}, for {label}"


def _other_coefs(law: Law, count: int) -> list[Any]:
    """Coefficients that a fit might find: those of the first group times other numbers, within their bounds."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        values = {}
        for v in variables(law.coefs):
            value = np.asarray(getattr(_first(law), v.name), np.float64)
            factors = random.choice([0.5, 1.0, 2.0], value.shape)
            signs = random.choice([-1.0, 1.0], value.shape) if v.bounds[0] < 0 < v.bounds[1] else 1.0
            values[v.name] = np.clip(value * factors * signs, *v.bounds)
        found.append(law.coefs(**values))
    return found


def knows_the_range_it_was_fitted_on(law: Law) -> None:
    """Its ends lie in it, in float32 too, and what lies beyond does not: for every group, and for ratios of inputs."""
    x, single = _inputs(law, ROWS), {v.name for v in variables(law.inputs) if not v.shape}
    outside = beyond(ranges_for(law, None), x)
    for v in variables(law.inputs):
        assert v.total is not None or not np.any(outside.get(v.name, False)), v.name
    assert {*law.ranges} <= {None, *law.groups}, (
        f"ranges of what is no group: { ({*law.ranges} - {None, *law.groups}) }"
    )
    for group in (None, *law.groups):
        ranges = ranges_for(law, group)
        assert {*law.ranges_of(group)} == {*ranges.ends}, f"a range of group {group!r} is not of the shape of the input"
        for name, ends in ranges.ends.items():
            above, *below = name.split("/")
            assert not below or {above, *below} <= single, f"{name} is no ratio of two inputs of the law"
            near = np.stack(ends)
            outward = np.array([-1, 1]).reshape(2, *[1] * ends[0].ndim)
            far = near + outward * (0.1 * np.abs(near) + 1e-9)
            for values, inside in ((near, True), (near.astype(np.float32), True), (far, False)):
                fields = {above: values} | {other: np.ones_like(values) for other in below}
                found = beyond(ranges, dataclasses.replace(jax.tree.map(lambda leaf: leaf[:2], x), **fields))[name]
                assert (found != inside).all(), f"{name}, group {group!r}"


def errors_have_a_covariance(law: Law) -> None:
    """Standard errors are positive, and so is the covariance."""
    for name in law.groups:
        covariance, stderr = law.covariance_of(name), law.stderr_of(name)
        assert set(law.source_of(name).logs) <= {v.name for v in variables(law.coefs)}, f"logs of group {name!r}"
        if stderr is not None:
            assert isinstance(stderr, law.coefs), f"standard errors of another law: group {name!r}"
            assert all((leaf > 0).all() for leaf in _leaves(stderr)), f"standard errors of group {name!r}"
        if covariance is not None:
            size = sum(leaf.size for leaf in _leaves(law.groups[name]))
            assert covariance.shape == (size, size), f"the covariance of group {name!r} is not of {size} coefficients"
            errors = np.sqrt(np.diag(covariance))
            assert np.linalg.eigvalsh(covariance / np.outer(errors, errors)).min() > 0, f"covariance of group {name!r}"


# What is compiled for the tests alone: in little time, however long it then runs.
SOON = {**QUICK, "xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}
ALONE, COMPOSED, DIRECTIONAL, DERIVATIVES = (
    Program(fn, static=1, cpu_options=SOON) for fn in (_alone, _composed, _directional, _derivatives)
)
