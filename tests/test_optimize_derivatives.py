"""Derivatives of optima, against differences between the optima of neighbouring problems."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_optimize_mixture import LAW, problems

import jaxlaws as jl

COUNT = 40
PARTS = ("proportions", "loss", "penalty", "lower_multipliers", "upper_multipliers", "sum_multipliers")


@pytest.fixture(scope="module")
def along():
    """The optima of problems all of whose numbers move with t, and the derivatives of all that by t."""
    options, _ = problems(COUNT, seed=3)
    rng = np.random.default_rng(0)
    options["strength"] = np.maximum(options["strength"], 0.01)
    sums = options.pop("sums")
    change = {name: 0.1 * rng.normal(size=value.shape) * value for name, value in options.items()}
    coefs = LAW.groups["410M"]
    coefs_change = jax.tree.map(lambda c: 0.1 * rng.normal(size=c.shape) * c, coefs)

    def optima(t):
        moved = {name: value + t * change[name] for name, value in options.items()}
        return jl.optimize_mixture(LAW, jax.tree.map(lambda c, d: c + t * d, coefs, coefs_change), sums=sums, **moved)

    with jax.enable_x64(True):
        compiled = jax.jit(optima)
        at = {t: jax.tree.map(np.asarray, compiled(t)) for t in (-2e-5, -1e-5, 0.0, 1e-5, 2e-5)}
        _, forward = jax.jit(lambda t: jax.jvp(optima, (t,), (1.0,)))(0.0)
        _, pull = jax.vjp(optima, 0.0)
        return at, jax.tree.map(np.asarray, forward), pull


def smooth(at):
    """Problems whose active bounds are the same at all points."""
    kept = [np.hstack([b.at_lower, b.at_upper, b.sum_multipliers > 1e-6, b.sum_multipliers < -1e-6]) for b in at]
    same = np.all([k == kept[0] for k in kept], axis=(0, -1))
    assert same.mean() > 0.8
    return same


@pytest.mark.parametrize("part", PARTS)
def test_forward_derivatives_are_those_of_neighbouring_problems(along, part):
    at, forward, _ = along
    same = smooth(at.values())
    value = lambda t: np.asarray(getattr(at[t], part))[same]  # noqa: E731
    slope = (8 * (value(1e-5) - value(-1e-5)) - (value(2e-5) - value(-2e-5))) / 12e-5
    np.testing.assert_allclose(np.asarray(getattr(forward, part))[same], slope, atol=1e-7 * (1 + abs(slope).max()))
    assert abs(slope).max() > 0.05


def test_reverse_derivatives_are_the_forward_ones(along):
    at, forward, pull = along
    rng = np.random.default_rng(1)
    cotangent = jax.tree.map(
        lambda x: np.zeros(x.shape, x.dtype if x.dtype.kind == "f" else jax.dtypes.float0), at[0.0]
    )
    chosen = {name: rng.normal(size=getattr(forward, name).shape) for name in PARTS}
    with jax.enable_x64(True):
        (found,) = pull(jax.tree.map(lambda x: x, type(cotangent)(**{**vars(cotangent), **chosen})))
    expected = sum(np.sum(chosen[name] * getattr(forward, name)) for name in PARTS)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_loss_changes_with_a_weight_by_the_loss_of_that_output():
    """Since the mixture is the best, its own change counts for nothing, but for the second derivative."""
    weights, change = np.array([0.1, 0.3, 0.2, 0.2, 0.2]), np.array([0.3, -0.1, 0.2, 0.1, -0.4])
    with jax.enable_x64(True):
        slope = jax.grad(lambda w: jl.optimize_mixture(LAW, "410M", weights=w, upper=0.4).loss)
        along = jax.jit(lambda t: slope(weights + t * change))
        best = jl.optimize_mixture(LAW, "410M", weights=weights, upper=0.4)
        np.testing.assert_allclose(along(0.0), best.losses, rtol=1e-9)
        _, bend = jax.jit(lambda t: jax.jvp(along, (t,), (1.0,)))(0.0)
        np.testing.assert_allclose(bend, (along(1e-4) - along(-1e-4)) / 2e-4, atol=1e-6)
        assert abs(bend).max() > 0.1


def test_bounds_and_budget_move_the_optimum():
    """The tokens available of one domain bound it; more budget takes its share away."""
    budget, available = 1e11, np.array([1e12, 1e12, 2e10, 1e12, 1e12])
    with jax.enable_x64(True):
        best = lambda b, a: jl.optimize_mixture(LAW, "410M", budget=b, available=a)  # noqa: E731
        found = best(budget, available)
        slopes = jax.jit(jax.jacobian(lambda b, a: (best(b, a).proportions, best(b, a).loss), (0, 1)))
        (by_budget, by_available), (loss_by_budget, _) = jax.tree.map(np.asarray, slopes(budget, available))
    found = jax.tree.map(np.asarray, found)
    assert found.at_upper.tolist() == [False, False, True, False, False]
    np.testing.assert_allclose(by_budget[2], -0.2 / budget, rtol=1e-9)
    np.testing.assert_allclose(by_available[2, 2], 1 / budget, rtol=1e-9)
    np.testing.assert_allclose(by_available[:, [0, 1, 3, 4]], 0, atol=1e-20)
    np.testing.assert_allclose(by_budget.sum(), 0, atol=1e-20)
    np.testing.assert_allclose(loss_by_budget, found.upper_multipliers[2] * -0.2 / budget, rtol=1e-9)


def test_domains_that_cannot_move_move_with_their_bounds():
    with jax.enable_x64(True):

        def best(x):
            return jl.optimize_mixture(LAW, "70M", lower=jnp.zeros(5).at[0].set(x), upper=jnp.ones(5).at[0].set(x))

        slope = jax.jit(jax.jacobian(lambda x: best(x).proportions))(0.3)
        near = (jax.jit(best)(0.3 + 1e-5).proportions - jax.jit(best)(0.3 - 1e-5).proportions) / 2e-5
        np.testing.assert_allclose(slope, near, atol=1e-7)
        assert slope[0] == 1


def test_without_an_optimum_there_are_no_derivatives():
    with jax.enable_x64(True):
        best = lambda x: jl.optimize_mixture(LAW, "70M", sums=[[1, 1, 0, 0, 0]], sum_lower=[x], sum_upper=[0.2])  # noqa: E731
        slope = jax.jit(jax.jacobian(lambda x: best(x).proportions))
        assert np.isnan(slope(0.3)).all()
        assert np.isfinite(slope(0.1)).all()


def test_constants_inside_jit_are_what_they_are():
    """XLA reads the bits of constants in the wrong order where their axes are swapped."""
    rng = np.random.default_rng(0)
    weights, prior = rng.dirichlet(np.ones(5), (2, 4))
    with jax.enable_x64(True):
        best = lambda w: jl.optimize_mixture(LAW, "410M", weights=w, prior=prior, strength=0.3)  # noqa: E731
        np.testing.assert_allclose(jax.jit(best)(weights).penalty, best(weights).penalty, rtol=1e-9)
