"""Derivatives of optima, against differences between the optima of neighbouring problems."""

import functools

import jax
import numpy as np
import pytest
from conftest import QUICK
from test_optimize_mixture import LAW, K, problems, search

import jaxlaws as jl

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")  # answers far from all runs are answers here

COUNT = 40
PARTS = ("proportions", "loss", "penalty", "lower_multipliers", "upper_multipliers", "sum_multipliers")
PRIOR = problems(COUNT, seed=3)[0]["prior"]


@functools.cache
def compiled():
    """The one program: optima, what they are moved by when options move, and the reverse of that.

    The prior is a constant of it, times a factor that moves.
    """

    def optima(options):
        options = dict(options)
        prior = PRIOR * options.pop("prior_factor")
        found = jl.optimize_mixture(LAW, options.pop("coefs"), prior=prior, **options)
        return {name: getattr(found, name) for name in PARTS}, found

    def derivatives(options, change, cotangent):
        _, pushed, found = jax.linearize(optima, options, has_aux=True)
        (pulled,) = jax.linear_transpose(pushed, options)(cotangent)
        return found, pushed(change), pulled

    return jax.jit(derivatives, compiler_options=QUICK)


def everything(**given):
    """All options of COUNT problems, by default those of no use."""
    fields = vars(LAW.groups["410M"])
    default = {
        **{"weights": np.full(K, 1 / K), "lower": np.zeros(K), "upper": np.ones(K), "available": np.full(K, 1e30)},
        **{"budget": 1.0, "max_epochs": np.ones(K), "prior_factor": np.ones(K), "strength": 0.0},
        **{"sums": np.eye(4, K), "sum_lower": np.full(4, -np.inf), "sum_upper": np.full(4, np.inf)},
    }
    options = {
        name: np.broadcast_to(given.get(name, value), (COUNT, *np.shape(value))) for name, value in default.items()
    }
    coefs = given.get("coefs", fields)
    options["coefs"] = type(LAW.groups["410M"])(
        **{name: np.broadcast_to(coefs[name], (COUNT, *np.shape(value))) for name, value in fields.items()}
    )
    return options


def derivatives(options, change=None, cotangent=None):
    """Optima, their derivatives in a direction of the options, and those of what a cotangent takes of them."""
    nothing = jax.tree.map(np.zeros_like, options)
    shapes = {"proportions": (K,), "lower_multipliers": (K,), "upper_multipliers": (K,), "sum_multipliers": (4,)}
    none = {name: np.zeros((COUNT, *shapes.get(name, ()))) for name in PARTS}
    with jax.enable_x64(True):
        found = compiled()(options, {**nothing, **(change or {})}, {**none, **(cotangent or {})})
    return jax.tree.map(np.asarray, found)


def rows_of(part):
    """Cotangents for which the problems from the first on, all the same, give a row of the Jacobian of a part each."""
    return {part: np.eye(COUNT, K)}


@pytest.fixture(scope="module")
def along():
    """The optima of problems all of whose numbers move with t, and the derivatives of all that by t."""
    options, _ = problems(COUNT, seed=4)
    rng = np.random.default_rng(0)
    options["strength"] = np.maximum(options["strength"], 0.01)
    sums, prior = options.pop("sums"), options.pop("prior")
    options["prior_factor"] = prior / PRIOR
    change = {name: 0.2 * rng.normal(size=value.shape) * value for name, value in options.items()}
    coefs = vars(LAW.groups["410M"])
    coefs_change = {name: 0.1 * rng.normal(size=c.shape) * c for name, c in coefs.items()}

    def at(t, **more):
        moved = {name: value + t * change[name] for name, value in options.items()}
        moved["coefs"] = {name: c + t * coefs_change[name] for name, c in coefs.items()}
        return derivatives(everything(sums=sums, **moved), **more)

    direction = everything(sums=np.zeros_like(sums), **change, coefs=coefs_change)
    direction |= {name: np.zeros_like(direction[name]) for name in ("available", "budget", "max_epochs")}
    cotangent = {name: rng.normal(size=getattr(at(0.0)[0], name).shape) for name in PARTS}
    start = at(0.0, change=direction, cotangent=cotangent)
    return {t: at(t)[0] for t in (-2e-5, -1e-5, 0.0, 1e-5, 2e-5)}, start, direction, cotangent


def smooth(at):
    """Problems whose active bounds are the same at all points."""
    kept = [np.hstack([b.at_lower, b.at_upper, b.sum_multipliers > 1e-6, b.sum_multipliers < -1e-6]) for b in at]
    same = np.all([k == kept[0] for k in kept], axis=(0, -1))
    assert same.mean() > 0.8
    return same


@pytest.mark.parametrize("part", PARTS)
def test_forward_derivatives_are_those_of_neighbouring_problems(along, part):
    at, (_, forward, _), _, _ = along
    same = smooth(at.values())
    value = lambda t: getattr(at[t], part)[same]  # noqa: E731
    slope = (8 * (value(1e-5) - value(-1e-5)) - (value(2e-5) - value(-2e-5))) / 12e-5
    np.testing.assert_allclose(forward[part][same], slope, atol=1e-7 * (1 + abs(slope).max()))
    assert abs(slope).max() > 0.05


def test_reverse_derivatives_are_the_forward_ones(along):
    _, (_, forward, reverse), direction, cotangent = along
    found = sum(np.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (reverse, direction)), strict=True))
    expected = sum(np.sum(cotangent[name] * forward[name]) for name in PARTS)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def inside_and_outside():
    """The first optima of the compiled program, and the same from a search that is no part of another program."""
    weights = np.random.default_rng(0).dirichlet(np.ones(K), COUNT)
    options = everything(weights=weights, upper=0.4, strength=np.resize([0, 0.3], COUNT))
    inside, _, _ = derivatives(options)
    options["prior"] = PRIOR * options.pop("prior_factor")
    first = jax.tree.map(lambda value: value[:8], (inside, options))
    return first[0], search(first[1].pop("coefs"), **first[1])


def test_inside_jit_it_is_the_same():
    inside, outside = inside_and_outside()
    np.testing.assert_allclose(inside.proportions, outside.proportions, atol=1e-9)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(outside.proportions, outside.proportions[::-1], atol=1e-9)


def test_constants_inside_jit_are_what_they_are():
    """XLA reads the bits of constants in the wrong order where their axes are swapped."""
    inside, outside = inside_and_outside()
    np.testing.assert_allclose(inside.penalty, outside.penalty, rtol=1e-9)


def test_the_loss_changes_with_a_weight_by_the_loss_of_that_output():
    """Since the mixture is the best, its own change counts for nothing, but for the second derivative."""
    weights, change = np.array([0.1, 0.3, 0.2, 0.2, 0.2]), np.array([0.3, -0.1, 0.2, 0.1, -0.4])
    slope = jax.grad(lambda w: jl.optimize_mixture(LAW, "410M", weights=w, upper=0.4).loss)
    along = jax.jit(lambda t: jax.jvp(lambda t: slope(weights + t * change), (t,), (1.0,)), compiler_options=QUICK)
    with jax.enable_x64(True):
        (found, bend), (after, _), (before, _) = (map(np.asarray, along(t)) for t in (0.0, 1e-4, -1e-4))
    best = search("410M", weights=weights, upper=0.4)
    np.testing.assert_allclose(found, best.losses, rtol=1e-9)
    np.testing.assert_allclose(bend, (after - before) / 2e-4, atol=1e-6)
    assert abs(bend).max() > 0.1


def test_bounds_and_budget_move_the_optimum():
    """The tokens available of one domain bound it; more budget takes its share away."""
    budget, available = 1e11, np.array([1e12, 1e12, 2e10, 1e12, 1e12])
    options = everything(budget=budget, available=available)
    found, _, by_proportions = derivatives(options, cotangent=rows_of("proportions"))
    _, _, by_loss = derivatives(options, cotangent={"loss": np.ones(COUNT)})
    by_budget, by_available = (by_proportions[name][:K] for name in ("budget", "available"))
    loss_by_budget = by_loss["budget"][0]
    assert found.at_upper[0].tolist() == [False, False, True, False, False]
    np.testing.assert_allclose(by_budget[2], -0.2 / budget, rtol=1e-9)
    np.testing.assert_allclose(by_available[2, 2], 1 / budget, rtol=1e-9)
    np.testing.assert_allclose(by_available[:, [0, 1, 3, 4]], 0, atol=1e-20)
    np.testing.assert_allclose(by_budget.sum(), 0, atol=1e-20)
    np.testing.assert_allclose(loss_by_budget, found.upper_multipliers[0, 2] * -0.2 / budget, rtol=1e-9)


def test_domains_that_cannot_move_move_with_their_bounds():
    first = np.eye(K)[0]

    def at(x, **more):
        coefs = vars(LAW.groups["70M"])
        return derivatives(everything(lower=x * first, upper=1 + (x - 1) * first, coefs=coefs), **more)

    unit = np.broadcast_to(first, (COUNT, K))
    _, forward, reverse = at(0.3, change={"lower": unit, "upper": unit}, cotangent=rows_of("proportions"))
    near = (at(0.3 + 1e-5)[0].proportions[0] - at(0.3 - 1e-5)[0].proportions[0]) / 2e-5
    for slope in (forward["proportions"][0], (reverse["lower"] + reverse["upper"])[:K, 0]):
        np.testing.assert_allclose(slope, near, atol=1e-7)
        assert slope[0] == 1


def test_without_an_optimum_there_are_no_derivatives():
    def slope(x):
        rows = np.array([[1.0, 1, 0, 0, 0], *np.zeros((3, K))])
        ends = {"sum_lower": np.array([x, *[-np.inf] * 3]), "sum_upper": np.array([0.2, *[np.inf] * 3])}
        options = everything(sums=rows, **ends, coefs=vars(LAW.groups["70M"]))
        return derivatives(options, cotangent=rows_of("proportions"))[2]["sum_lower"][:K, 0]

    assert np.isnan(slope(0.3)).all()
    assert np.isfinite(slope(0.1)).all()
