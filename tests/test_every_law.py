"""Every law x every property that a law must have."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sampling import PUBLISHED, columns, formula, inputs

import jaxlaws as jl
from jaxlaws.columns import from_columns
from jaxlaws.law import variables

ROWS = 20

# Inputs that the loss falls with, over the whole of the fitted range.
FALLS_WITH = {
    "moe": ("dense_parameter_count", "num_experts"),
    "moe_onset": ("dense_parameter_count", "num_experts"),
    "parallel": ("num_params", "parallel_size"),
    "parallel_square_root": ("num_params", "parallel_size"),
    "data_constrained": ("params", "tokens"),
    "data_constrained_overfit": ("unique_tokens",),
    "sft": ("sft_data_size",),
    "sft_saturated": ("sft_data_size",),
}


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_equal(a, b, **options):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **{"rtol": 1e-13, "atol": 1e-300, **options})


def test_says_what_it_is(law):
    assert law.title
    assert law.title[0].islower()
    assert law.source.reference
    assert law.golden
    for cls in (law.inputs, law.coefs, law.outputs):
        assert cls.__doc__
        for v in variables(cls):
            assert v.description
            assert v.unit
            assert len(v.column_names(law.sizes)) == (law.sizes[v.shape[0]] if v.shape else 1)
    for v in variables(law.inputs):
        assert v.range is not None
        assert np.all(np.less(*v.range))
    for coefs in law.groups.values():
        assert isinstance(coefs, law.coefs)
        for v in variables(law.coefs):
            assert np.shape(getattr(coefs, v.name)) == tuple(law.sizes[axis] for axis in v.shape)


@pytest.mark.parametrize("decades", [0, 6])
def test_agrees_with_its_formula(law, decades):
    x = inputs(law, ROWS, decades=decades)
    for group, coefs in law.groups.items():
        expected = np.array([formula(law, coefs, x, row) for row in range(ROWS)])
        np.testing.assert_allclose(law(group, x), expected, rtol=1e-12)


def test_agrees_with_its_golden_values(law):
    for group, row, outputs in law.golden:
        x = from_columns(law, [np.array([row[name]], np.float64) for name in law.input_columns])
        np.testing.assert_allclose(np.ravel(law(group, x)), list(outputs.values()), rtol=1e-12)
        assert tuple(outputs) == law.output_columns


@pytest.mark.parametrize("law", PUBLISHED, indirect=True)
def test_agrees_with_the_published_code(law, golden):
    rows, outputs = golden[law.name]["rows"], golden[law.name]["outputs"]
    assert set(outputs) == {*law.groups, "no such group"}
    predict = jl.sldbench.law(law.name)
    for group, expected in outputs.items():
        found = predict(rows, group)
        np.testing.assert_allclose([list(row.values()) for row in found], expected, rtol=1e-12)


def test_float32_is_within_1e_5(law):
    exact = columns(law, 1000, decades=6)
    single = [c.astype(np.float32) for c in exact.values()]
    double = [c.astype(np.float64) for c in single]
    for group in law.groups:
        found = law(group, from_columns(law, single))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, law(group, from_columns(law, double)), rtol=1e-5)


@pytest.mark.parametrize("law", PUBLISHED, indirect=True)
def test_float32_is_within_1e_5_of_the_published_code_at_the_floors_too(law, golden):
    rows, outputs = golden[law.name]["rows"], golden[law.name]["outputs"]
    usable = [
        i
        for i, row in enumerate(rows)
        if all(np.isfinite(row.get(c) or np.nan) or row.get(c) == 0 for c in law.input_columns)
    ]
    assert len(usable) >= 6
    x = from_columns(law, [np.array([rows[i][c] for i in usable], np.float32) for c in law.input_columns])
    for group in law.groups:
        expected = np.array(outputs[group])[usable]
        np.testing.assert_allclose(np.asarray(law(group, x)).reshape(expected.shape), expected, rtol=1e-5)


def test_gradient_agrees_with_finite_differences(law, x64):
    coefs = jax.tree.map(np.asarray, list(law.groups.values())[-1])
    x = inputs(law, 3)
    for row in range(3):
        logs = jax.tree.map(lambda leaf, row=row: jnp.log(leaf[row]), x)
        check_grads(lambda u: law.fn(coefs, jax.tree.map(jnp.exp, u)), (logs,), order=2, eps=1e-4, atol=1e-6, rtol=1e-6)
        check_grads(
            lambda c, row=row: law.fn(c, jax.tree.map(lambda leaf: leaf[row], x)),
            (coefs,),
            order=1,
            eps=1e-6,
            rtol=1e-6,
        )


def test_gradient_agrees_with_differences_of_the_formula(law):
    x = inputs(law, 5)
    group, coefs = next(iter(law.groups.items()))
    found = jl.gradient(law, group, x)
    for v in variables(law.inputs):
        values = np.asarray(getattr(x, v.name))
        for index in np.ndindex(values.shape):

            def f(step, index=index, values=values, name=v.name):
                moved = values.copy()
                moved[index] *= 1 + step
                return np.mean(formula(law, coefs, dataclasses.replace(x, **{name: moved}), index[0]))

            h = 1e-3
            slope = (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)
            np.testing.assert_allclose(
                np.asarray(getattr(found, v.name))[index] * values[index], slope, rtol=1e-7, atol=1e-9
            )


def test_derivatives_agree_with_each_other(law):
    x = inputs(law, ROWS)
    group = next(iter(law.groups))
    value, gradient = jax.tree.map(np.asarray, jl.value_and_gradient(law, group, x))
    single = law.output_columns == (law.output_text,)
    outputs = np.asarray(law(group, x))
    assert_equal(value, outputs if single else outputs.mean(axis=-1), rtol=1e-14)
    assert_equal(gradient, jl.gradient(law, group, x))
    jacobian = jax.tree.map(np.asarray, jl.jacobian(law, group, x))
    assert_equal(gradient, jacobian if single else jax.tree.map(lambda j: j.mean(axis=1), jacobian), atol=1e-12)
    elasticity = jl.elasticity(law, group, x)
    for v in variables(law.inputs):
        g, e, values = (getattr(r, v.name) for r in (gradient, elasticity, x))
        scale = value[(...,) + (None,) * len(v.shape)]
        np.testing.assert_allclose(e, values * g / scale, rtol=1e-12)
    hessian = jl.hessian(law, group, x)
    for v in variables(law.inputs):
        for w in variables(law.inputs):
            a, b = getattr(getattr(hessian, v.name), w.name), getattr(getattr(hessian, w.name), v.name)
            b = np.swapaxes(b, -1, -2) if v.shape and w.shape else b
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_weights_pick_an_output(law):
    x = inputs(law, ROWS)
    group = next(iter(law.groups))
    count = len(law.output_columns)
    if count == 1:
        with pytest.raises(TypeError, match="takes no weights"):
            jl.gradient(law, group, x, weights=[1.0])
        return
    jacobian = jax.tree.map(np.asarray, jl.jacobian(law, group, x))
    for i, weights in enumerate(np.eye(count)):
        value, gradient = jl.value_and_gradient(law, group, x, weights=weights)
        np.testing.assert_allclose(value, law(group, x)[:, i], rtol=1e-13)
        assert_equal(gradient, jax.tree.map(lambda j, i=i: j[:, i], jacobian), atol=1e-13)
    many = jl.gradient(law, group, x, weights=np.random.default_rng(0).random((7, 1, count)))
    assert {leaf.shape[:2] for leaf in leaves(many)} == {(7, ROWS)}


def test_jit_is_no_jit(law):
    x = inputs(law, ROWS)
    for group in list(law.groups)[:3]:
        with jax.disable_jit():
            plain = law(group, x)
        np.testing.assert_allclose(law(group, x), plain, rtol=1e-14)


def test_a_batch_is_a_loop(law):
    x = inputs(law, ROWS)
    group = next(iter(law.groups))
    for verb in (jl.predict, jl.gradient, jl.jacobian, jl.hessian, jl.elasticity):
        batch = verb(law, group, x)
        loop = [verb(law, group, jax.tree.map(lambda leaf, row=row: leaf[row], x)) for row in range(ROWS)]
        assert_equal(batch, jax.tree.map(lambda *rows: np.stack(rows), *loop), rtol=1e-12)


def test_composes_with_transformations(law, x64):
    coefs = jax.tree.map(jnp.asarray, next(iter(law.groups.values())))
    x = jax.tree.map(jnp.asarray, inputs(law, ROWS))
    plain = law(coefs, x)
    assert_equal(jax.jit(law)(coefs, x), plain)
    assert_equal(jax.vmap(lambda row: law(coefs, row))(x), plain)
    assert_equal(jax.lax.scan(lambda c, row: (c, law(coefs, row)), 0, x)[1], plain)
    one = jax.tree.map(lambda leaf: leaf[0], x)
    by_jax = jax.grad(lambda row: law(coefs, row).mean())(one)
    assert_equal(jax.jit(jax.grad(lambda row: law(coefs, row).mean()))(one), by_jax)
    assert_equal(jax.tree.map(lambda leaf: leaf[0], jl.gradient(law, coefs, x)), by_jax, atol=1e-13)
    assert_equal(jax.jacfwd(lambda row: law(coefs, row))(one), jl.jacobian(law, coefs, one), atol=1e-13)
    assert_equal(
        jax.hessian(lambda row: law(coefs, row).mean())(one), jl.hessian(law, coefs, one), rtol=1e-10, atol=1e-12
    )
    by_coefs = jax.grad(lambda c: law(c, x).mean())(coefs)
    assert all(np.isfinite(leaf).all() for leaf in leaves(by_coefs))


def test_mixed_groups_are_a_loop_over_groups(law):
    names = list(law.groups)
    ids = np.random.default_rng(1).integers(len(names), size=ROWS)
    x = inputs(law, ROWS)
    loop = [law(names[g], jax.tree.map(lambda leaf, row=row: leaf[row], x)) for row, g in enumerate(ids)]
    assert_equal(law(ids, x), np.stack(loop))
    assert_equal(law([names[g] for g in ids], x), np.stack(loop))
    assert_equal(law(np.array(names)[ids], x), np.stack(loop))
    assert_equal(jl.gradient(law, ids, x), jl.gradient(law, [names[g] for g in ids], x))
    every = law(np.arange(len(names))[:, None], x)
    assert_equal(every, np.stack([law(name, x) for name in names]))
    assert_equal(law(jl.stack(law.groups.values()), jax.tree.map(lambda leaf: leaf[0], x)), every[:, 0])


def counted(law):
    """The law, and a list that grows by one with each trace."""
    traces = []

    @functools.wraps(law.fn)
    def fn(coefs, x):
        traces.append(1)
        return law.fn(coefs, x)

    return dataclasses.replace(law, fn=fn), traces


def test_one_trace_for_all_groups(law):
    law, traces = counted(law)
    x = inputs(law, ROWS)
    for group in law.groups:
        law(group, x)
    law(next(iter(law.groups)), jax.tree.map(lambda leaf: leaf * 2, x))
    law(law.coefs(**jl.as_dict(next(iter(law.groups.values())))), x)
    assert len(traces) == 1
    law([next(iter(law.groups))] * ROWS, x)
    law(np.zeros(ROWS, int), x)
    assert len(traces) == 2


def test_python_numbers_do_not_retrace(law):
    law, traces = counted(law)
    row = jax.tree.map(lambda leaf: leaf[0], inputs(law, 1))
    group = next(iter(law.groups))
    for number in (float, np.float32, jnp.float32, lambda value: jnp.asarray(value, "float32")):
        law(group, jax.tree.map(lambda leaf, number=number: _each(number, leaf), row))
    assert len(traces) == 1


def _each(number, leaf):
    return number(leaf) if np.ndim(leaf) == 0 else [number(x) for x in leaf]


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float32, np.float64])
def test_dtype_is_kept(law, dtype, enabled):
    group = next(iter(law.groups))
    x = jax.tree.map(lambda leaf: leaf.astype(dtype), inputs(law, ROWS))
    with jax.enable_x64(enabled):
        for verb in (jl.predict, jl.gradient, jl.hessian):
            assert {leaf.dtype for leaf in leaves(verb(law, group, x))} == {np.dtype(dtype)}
        assert jax.config.jax_enable_x64 is enabled


def test_pickles_to_itself(law):
    assert pickle.loads(pickle.dumps(law)) is law
    assert copy.deepcopy(law) is law
    coefs = next(iter(law.groups.values()))
    assert_equal(pickle.loads(pickle.dumps(coefs)), coefs)


def test_coefficients_survive_json(law):
    for coefs in law.groups.values():
        again = law.coefs(**json.loads(json.dumps(jl.as_dict(coefs))))
        for v in variables(law.coefs):
            assert np.array_equal(getattr(again, v.name), getattr(coefs, v.name))


def test_a_grid_is_its_points(law):
    fields = variables(law.inputs)
    x = inputs(law, 4)
    axes = {}
    for axis, v in enumerate(fields):
        values = getattr(x, v.name)
        shape = [1] * len(fields)
        shape[axis] = 4
        axes[v.name] = values.reshape(*shape, *values.shape[1:])
    group = next(iter(law.groups))
    for verb in (jl.predict, jl.gradient, jl.hessian):
        grid = verb(law, group, **axes)
        full = {
            v.name: np.broadcast_to(axes[v.name], (4,) * len(fields) + np.shape(axes[v.name])[len(fields) :])
            for v in fields
        }
        assert_equal(grid, verb(law, group, **full), rtol=1e-12)
    assert law(group, **axes).shape[: len(fields)] == (4,) * len(fields)


def test_flat_and_finite_below_its_floor(law):
    row = jax.tree.map(lambda leaf: leaf[0], inputs(law, 1))
    group = next(iter(law.groups))
    for v in variables(law.inputs):
        if v.floor is None:
            continue
        below = np.array([v.floor / 2 if v.name != "tokens" else 0.0, 0.0, -1.0, -np.inf])
        if law.name == "data_constrained" and v.name != "unique_tokens":
            below[0] = 0.0  # its source replaces what is not positive, and leaves small values
        x = dataclasses.replace(row, **{v.name: below})
        outputs = np.asarray(law(group, x))
        assert np.isfinite(outputs).all()
        assert (outputs == outputs[0]).all()
        assert not np.any(getattr(jl.gradient(law, group, x), v.name))
        at = jl.gradient(law, group, dataclasses.replace(row, **{v.name: np.array(max(v.floor, 1.0))}))
        assert np.asarray(getattr(at, v.name)) != 0, "on its floor an input has the derivative from above"


def test_nan_in_nan_out(law):
    row = jax.tree.map(lambda leaf: leaf[0], inputs(law, 1))
    group = next(iter(law.groups))
    if law.name == "data_constrained":
        return  # takes NaN as its floor, as its source does: among the golden values
    for v in variables(law.inputs):
        bad = np.full(np.shape(getattr(row, v.name)), np.nan)
        assert np.isnan(law(group, dataclasses.replace(row, **{v.name: bad}))).all()


def test_loss_falls_with_scale(law):
    x = inputs(law, 200)
    for group in law.groups:
        elasticity = jl.elasticity(law, group, x)
        for name in FALLS_WITH.get(law.name, ()):
            assert (np.asarray(getattr(elasticity, name)) < 0).all()


def test_knows_the_range_it_was_fitted_on(law):
    x = inputs(law, ROWS)
    inside = jl.in_range(law, x)
    for v in variables(law.inputs):
        if v.total is None:
            assert getattr(inside, v.name).all()
        ends = np.stack([np.broadcast_to(end, [law.sizes[a] for a in v.shape]) for end in v.range]).astype(float)
        assert getattr(jl.in_range(law, dataclasses.replace(x, **{v.name: ends})), v.name).all()
        single = ends.astype(np.float32)
        assert getattr(jl.in_range(law, dataclasses.replace(x, **{v.name: single})), v.name).all()
        beyond = ends * np.array([0.9, 1.1]).reshape(2, *[1] * len(v.shape)) - 1e-9
        outside = ~getattr(jl.in_range(law, dataclasses.replace(x, **{v.name: beyond})), v.name)
        assert outside.all()
