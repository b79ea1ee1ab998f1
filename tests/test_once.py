"""Functions that compute nothing twice."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxlaws.fitting.once import once


def count(fn, *args):
    """How many equations of each kind a function has, in all functions that it calls."""
    found = {}

    def add(jaxpr):
        for equation in jaxpr.eqns:
            inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            if inner is None:
                found[equation.primitive.name] = found.get(equation.primitive.name, 0) + 1
            else:
                add(inner.jaxpr)

    add(jax.make_jaxpr(fn)(*args).jaxpr)
    return found


def test_what_is_computed_again_is_computed_once():
    weights = np.arange(3.0)

    def fn(x):
        one = jnp.where(x > 0, jnp.log(x), jnp.nan) * weights
        other = jax.jit(lambda x: jnp.where(x > 0, jnp.log(x), jnp.nan))(x) * weights
        return one + other, {"max": jax.nn.relu(x) + jax.nn.relu(x)}

    x = jnp.array([-1.0, 0.5, 2.0])
    assert count(fn, x)["log"] == 2
    assert count(once(fn), x)["log"] == count(once(fn), x)["mul"] == 1
    jax.tree.map(np.testing.assert_array_equal, once(fn)(x), fn(x))


def test_what_differs_in_a_number_or_a_parameter_is_computed():
    def fn(x):
        return x + 1, x + 2, x[:2], x[1:], jnp.sum(x), jnp.sum(x, keepdims=True), x + x.astype(jnp.int32)

    x = jnp.array([1.0, 2.0, 3.0])
    jax.tree.map(np.testing.assert_array_equal, once(fn)(x), fn(x))


def test_values_of_the_outside_and_loops_are_kept():
    def outer(scale, x):
        def step(i, x):
            return x * scale + jnp.sin(x) + jnp.sin(x)

        plain = jax.lax.fori_loop(0, 3, step, x)
        return plain, jax.lax.fori_loop(0, 3, lambda i, x: once(lambda x: step(i, x))(x), x)

    plain, merged = jax.jit(outer)(0.5, jnp.arange(4.0))
    np.testing.assert_array_equal(plain, merged)


def test_a_result_may_be_an_argument_or_a_constant():
    assert once(lambda x, y: (y, x, 3.0))(1, 2.0) == (2.0, 1, 3.0)
