"""The allocation of compute, against closed forms, SciPy, enumeration, and differences of neighbouring problems."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUICK
from jax.tree_util import Partial
from scipy.optimize import minimize

import jaxlaws as jl

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")  # answers far from all runs are answers here

LAW = jl.laws["chinchilla"]
GROUP = "besiroglu2024"
C = LAW.groups[GROUP]
FINITE = jl.laws["data_constrained"]


def closed_form(c, budget):
    """The best parameters and tokens for 6ND (Hoffmann et al. 2022, appendix D.3)."""
    g = (c.alpha * c.A / (c.beta * c.B)) ** (1 / (c.alpha + c.beta))
    params = g * (budget / 6) ** (c.beta / (c.alpha + c.beta))
    return params, budget / 6 / params


def loss_of(c, params, tokens):
    """The law, written again."""
    return c.E + c.A * params**-c.alpha + c.B * tokens**-c.beta


def by_eights(law, group, cost=jl.costs.training, **options):
    """Many problems, whose options have a row for each, in batches of 8: for one program, which takes long to make."""
    count = len(jax.tree.leaves(options)[0])
    parts = []
    for i in range(0, count, 8):
        of = group if isinstance(group, str) else jax.tree.map(lambda row, i=i: row[i : i + 8], group)
        parts.append(jl.allocate(law, of, cost=cost, **jax.tree.map(lambda row, i=i: row[i : i + 8], options)))
    return jax.tree.map(lambda *each: np.concatenate(each), *parts)


@pytest.mark.parametrize("group", LAW.groups)
def test_it_is_the_closed_form(group):
    c, budgets = LAW.groups[group], np.geomspace(1e15, 1e29, 500)
    plan = jl.allocate(LAW, group, budget=budgets)
    params, tokens = closed_form(c, budgets)
    np.testing.assert_allclose(plan.inputs.params, params, rtol=1e-8)
    np.testing.assert_allclose(plan.inputs.tokens, tokens, rtol=1e-8)
    np.testing.assert_allclose(plan.cost, budgets, rtol=1e-10)
    np.testing.assert_allclose(plan.loss, loss_of(c, params, tokens), rtol=1e-12)
    slope = -c.alpha * c.A * params**-c.alpha
    np.testing.assert_allclose(plan.multiplier, slope, rtol=1e-8)
    assert plan.converged.all()
    assert plan.convex.all()
    assert plan.gap.max() < 1e-11


def test_the_published_optimum():
    plan = jl.allocate(LAW, GROUP, budget=5.76e23)
    np.testing.assert_allclose([plan.inputs.params, plan.inputs.tokens], [7.2249e10, 1.32874e12], rtol=1e-5)


def test_groups_draws_and_budgets_broadcast():
    rng = np.random.default_rng(0)
    draws = jax.tree.map(lambda x: x * rng.normal(1, 0.05, (4, 1)), C)
    budgets = np.geomspace(1e20, 1e24, 2)
    plan = jl.allocate(LAW, draws, budget=budgets)
    assert plan.loss.shape == (4, 2)
    params, _ = closed_form(draws, budgets)
    np.testing.assert_allclose(plan.inputs.params, params, rtol=1e-8)
    both = jl.allocate(LAW, [GROUP, "hoffmann2022"], budget=1e21)
    np.testing.assert_allclose(both.inputs.params[1], closed_form(LAW.groups["hoffmann2022"], 1e21)[0], rtol=1e-8)


def test_target_and_budget_are_each_others_inverse():
    budgets = np.geomspace(1e18, 1e26, 56)
    plan = by_eights(LAW, GROUP, budget=budgets)
    back = by_eights(LAW, GROUP, target=plan.loss)
    np.testing.assert_allclose(back.cost, budgets, rtol=1e-8)
    np.testing.assert_allclose(back.loss, plan.loss, rtol=1e-11)
    np.testing.assert_allclose(back.multiplier, 1 / plan.multiplier, rtol=1e-6)
    assert back.converged.all()
    assert back.gap.max() < 1e-10


def test_inference_makes_the_best_model_smaller():
    """At the optimum, elasticities by params and tokens are as 1 + inference / (3 * training) to 1 (Sardana et al.)."""
    served = np.array([0.0, 1e11, 1e12, 1e13])
    for group in (GROUP, "sardana2024"):
        c = LAW.groups[group]
        plan = jl.allocate(LAW, group, budget=1e23, cost=jl.costs.training_and_inference(served))
        by_params = c.alpha * c.A * plan.inputs.params**-c.alpha
        by_tokens = c.beta * c.B * plan.inputs.tokens**-c.beta
        np.testing.assert_allclose(by_params / by_tokens, 1 + served / (3 * plan.inputs.tokens), rtol=1e-7)
        assert (np.diff(plan.inputs.params) < 0).all()
        assert plan.convex.all()
        assert plan.gap.max() < 1e-11


def test_constant_compute_is_a_curve_with_its_minimum_at_the_optimum():
    best = jl.allocate(LAW, GROUP, budget=1e22)
    sizes = best.inputs.params * np.geomspace(1 / 3, 3, 21)
    curve = by_eights(LAW, GROUP, params=sizes, budget=np.full(21, 1e22))
    np.testing.assert_allclose(curve.inputs.tokens, 1e22 / 6 / sizes, rtol=1e-10)
    assert np.argmin(curve.loss) == 10
    np.testing.assert_allclose(curve.loss[10], best.loss, rtol=1e-13)


def loss_by_hand(c, n, d, u):
    """data_constrained, written again."""
    return c.d + c.a * n**-c.alpha + c.b * d**-c.beta + c.c * u**-c.gamma + c.e * (d / u) ** -c.delta


def problems(count, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "budget": 10 ** rng.uniform(18, 24, count),
        "unique_tokens": 10 ** rng.uniform(9, 11, count),
        "max_epochs": 10 ** rng.uniform(0, 2, count),
        "lower": {"params": 10 ** rng.uniform(5, 8, count)},
        "upper": {"params": 10 ** rng.uniform(9, 11, count)},
    }


def test_with_bounds_it_is_no_worse_than_scipy_and_no_better_than_the_gap_allows():
    given = problems(60)
    plan = by_eights(FINITE, "all_data", **given)
    c = FINITE.groups["all_data"]
    assert plan.converged.all()
    assert plan.gap.max() < 1e-9
    found = 0
    for i in range(60):
        budget, unique, epochs = (given[name][i] for name in ("budget", "unique_tokens", "max_epochs"))
        low, high = np.log(given["lower"]["params"][i]), np.log(given["upper"]["params"][i])
        run = minimize(
            lambda x, u=unique: loss_by_hand(c, np.exp(x[0]), np.exp(x[1]), u),
            [(low + high) / 2, np.log(unique)],
            method="SLSQP",
            bounds=[(low, high), (0, np.log(unique * epochs))],
            constraints={"type": "ineq", "fun": lambda x, b=budget: np.log(b / 6) - x[0] - x[1]},
            options={"ftol": 1e-15, "maxiter": 300},
        )
        if run.success and np.log(budget / 6) - run.x.sum() > -1e-12:
            found += 1
            assert plan.loss[i] <= run.fun + 1e-9
            assert plan.loss[i] - plan.gap[i] <= run.fun + 1e-14
        at = plan.inputs
        np.testing.assert_allclose(plan.loss[i], loss_by_hand(c, at.params[i], at.tokens[i], unique), rtol=1e-13)
        assert 6 * at.params[i] * at.tokens[i] <= budget * (1 + 1e-9)
        assert at.tokens[i] <= unique * epochs * (1 + 1e-9)
    assert found > 30
    assert plan.at_upper.tokens.any()
    assert plan.at_upper.params.any()
    assert not plan.at_upper.unique_tokens.any()


def test_unique_tokens_can_be_searched_for_too():
    plan = jl.allocate(FINITE, "all_data", budget=1e22, max_epochs=4, upper={"unique_tokens": 5e9})
    np.testing.assert_allclose([plan.inputs.unique_tokens, plan.inputs.tokens], [5e9, 2e10], rtol=1e-8)
    fewer = jl.allocate(FINITE, "all_data", target=plan.loss, max_epochs=4, lower={"params": 1e12})
    assert fewer.inputs.tokens <= 4 * fewer.inputs.unique_tokens * (1 + 1e-9)


def test_searches_end_even_where_losses_grow_beyond_all_bounds():
    """Draws of coefficients, three unknowns, targets that are all but out of reach."""
    rng, count = np.random.default_rng(5), 300
    draws = jax.tree.map(lambda c: c * np.exp(0.3 * rng.normal(size=count)), FINITE.groups["all_data"])
    options = {
        "max_epochs": 10 ** rng.uniform(0, 3, count),
        "upper": {"unique_tokens": 10 ** rng.uniform(7, 13, count)},
    }
    best = by_eights(FINITE, draws, budget=10 ** rng.uniform(15, 27, count), **options)
    cheapest = by_eights(FINITE, draws, target=best.loss + 0.01, **options)
    assert best.converged.all()
    assert cheapest.converged.all()
    assert (cheapest.cost < best.cost).all()


@pytest.mark.parametrize("kind", ["budget", "target"])
def test_the_near_optimal_set_is_where_the_loss_is_almost_as_good(kind):
    if kind == "budget":
        plan = jl.allocate(LAW, GROUP, budget=1e22, within=[0.001, 0.01])
        limit = plan.loss * np.array([1.001, 1.01])
        at = lambda size: loss_of(C, size, 1e22 / 6 / size)  # noqa: E731
    else:
        plan = jl.allocate(LAW, GROUP, target=2.2, within=[0.001, 0.01])
        limit = plan.cost * np.array([1.001, 1.01])
        at = lambda size: 6 * size * ((2.2 - C.E - C.A * size**-C.alpha) / C.B) ** (-1 / C.beta)  # noqa: E731
    for size in (np.asarray(plan.lowest.params), np.asarray(plan.highest.params)):
        np.testing.assert_allclose(at(size), limit, rtol=1e-7)
    assert (plan.lowest.params < plan.inputs.params).all()
    assert (plan.inputs.params < plan.highest.params).all()
    assert (plan.lowest.tokens < plan.inputs.tokens).all()
    without = jl.allocate(LAW, GROUP, budget=1e22)
    assert np.isnan(without.lowest.params)


@pytest.mark.parametrize("powers", [False, True])
def test_whole_numbers_are_those_that_enumeration_finds(powers):
    law, budgets = jl.laws["parallel"], np.geomspace(1e9, 1e11, 8)
    options = {"powers_of_two": "parallel_size"} if powers else {}
    cost = jl.costs.stream_memory(bytes_per_stream=1e8)
    plan = jl.allocate(law, "pile", budget=budgets, cost=cost, upper={"parallel_size": 100}, **options)
    streams = np.array([2**i for i in range(7)] if powers else np.arange(1, 101))
    with np.errstate(invalid="ignore"):
        sizes = (budgets[:, None] - 1e8 * streams) / 2
        losses = np.where(sizes > 1, law("pile", num_params=np.maximum(sizes, 1), parallel_size=streams), np.inf)
    np.testing.assert_array_equal(plan.inputs.parallel_size, streams[np.argmin(losses, 1)])
    np.testing.assert_allclose(plan.loss, losses.min(1), rtol=1e-12)
    assert len(set(plan.inputs.parallel_size.tolist())) > 2
    assert plan.converged.all()
    assert plan.gap.max() < 1e-9


def test_experts_share_their_memory():
    """Half of the dense model is experts: many experts are worth their memory where a token may meet few."""
    law = jl.laws["moe"]
    budget = np.array([1e9, 1e10])
    active = jl.allocate(law, "all_data", budget=budget, cost=jl.costs.moe_active(), upper={"num_experts": 64})
    np.testing.assert_array_equal(active.inputs.num_experts, 64)
    np.testing.assert_allclose(active.inputs.dense_parameter_count, budget, rtol=1e-9)
    total = jl.allocate(law, "all_data", budget=budget, cost=jl.costs.moe_total(0.25), powers_of_two="num_experts")
    experts = 2.0 ** np.arange(10)
    losses = law("all_data", dense_parameter_count=budget[:, None] / (0.75 + 0.25 * experts), num_experts=experts)
    np.testing.assert_array_equal(total.inputs.num_experts, experts[np.argmin(losses, 1)])


def test_several_whole_numbers_have_an_honest_gap():
    plan = jl.allocate(LAW, GROUP, budget=[600.0, 6000.0, 60000.0], integers=("params", "tokens"))
    for i, budget in enumerate((100, 1000, 10000)):
        sizes = np.arange(1, budget + 1)
        best = loss_of(C, sizes, np.floor(budget / sizes)).min()
        assert plan.loss[i] >= best * (1 - 1e-12)
        assert plan.loss[i] - plan.gap[i] <= best
    assert (plan.inputs.params == np.round(plan.inputs.params)).all()


def test_where_nothing_is_known_the_best_of_several_starts_is_taken_and_the_gap_is_infinite():
    """A cost with two valleys: cheap are small models, and those near 1e10 parameters."""

    def cost(x):
        bump = 1 + 30 * jnp.exp(-((jnp.log(x.params / 1e9)) ** 2) / 2)
        return 6 * x.params * x.tokens * bump

    budgets = np.geomspace(1e19, 1e24, 6)
    plan = jl.allocate(LAW, GROUP, budget=budgets, cost=cost, lower={"params": 1e6, "tokens": 1e6})
    assert not plan.convex.any()
    assert np.isinf(plan.gap).all()
    assert plan.converged.all()
    sizes = np.geomspace(1e6, 1e13, 20001)
    bump = 1 + 30 * np.exp(-(np.log(sizes / 1e9) ** 2) / 2)
    tokens = budgets[:, None] / (6 * sizes * bump)
    best = np.where(tokens >= 1e6, loss_of(C, sizes, np.maximum(tokens, 1e6)), np.inf).min(1)
    np.testing.assert_allclose(plan.loss, best, rtol=1e-6)


def test_the_sign_of_a_coefficient_decides_whether_a_problem_is_convex():
    draws = dataclasses.replace(C, B=np.array([C.B, -1.0]))
    plan = jl.allocate(LAW, draws, budget=1e22, lower={"tokens": 1e9}, upper={"tokens": 1e13})
    assert plan.convex.tolist() == [True, False]
    assert np.isinf(plan.gap).tolist() == [False, True]
    np.testing.assert_allclose(plan.inputs.tokens[1], 1e9, rtol=1e-8)  # more tokens do harm


def test_derivatives_are_those_of_neighbouring_problems():
    """Of two problems: in one, the epochs are bounded, in the other the parameters."""
    rng = np.random.default_rng(0)
    given = {"budget": 1e22, "unique_tokens": 1e10, "served": 1e11}
    coefs = FINITE.groups["all_data"]
    direction = {name: rng.normal() for name in given}, jax.tree.map(lambda _: 0.1 * rng.normal(), coefs)
    bounds = {"max_epochs": np.array([5.0, np.inf]), "lower": {"params": np.array([1e-6, 3e10])}}

    def plan(t):
        moved = {name: value * jnp.exp(t * direction[0][name]) for name, value in given.items()}
        c = jax.tree.map(lambda value, change: value * jnp.exp(t * change), coefs, direction[1])
        cost = jl.costs.training_and_inference(moved.pop("served"))
        found = jl.allocate(FINITE, c, cost=cost, **moved, **bounds)
        return found.inputs.params, found.inputs.tokens, 1e9 * found.loss, 1e9 * found.multiplier, found.cost

    def derivatives(t):
        """The optima; and the forward and the reverse derivatives, of [part, problem]."""
        at, pushed = jax.linearize(lambda t: jnp.stack(plan(t)), t)
        pulled = jax.vmap(jax.linear_transpose(pushed, t))(jnp.eye(10).reshape(10, 5, 2))
        return at, pushed(1.0), pulled[0].reshape(5, 2)

    derivatives = jax.jit(derivatives, compiler_options=QUICK)
    with jax.enable_x64(True):
        (_, forward, reverse), (after, *_), (before, *_) = (
            [np.asarray(each) for each in derivatives(t)] for t in (0.0, 1e-4, -1e-4)
        )
    np.testing.assert_allclose(forward, (after - before) / 2e-4, rtol=1e-5, atol=0.1)
    np.testing.assert_allclose(reverse, forward, rtol=1e-7, atol=1e-3)


def test_float32_is_kept_and_close():
    budgets = np.geomspace(1e18, 1e26, 200)
    small = by_eights(LAW, GROUP, budget=budgets.astype(np.float32))
    exact = by_eights(LAW, GROUP, budget=budgets)
    assert {x.dtype.name for x in jax.tree.leaves(small)} <= {"float32", "int32", "bool"}
    np.testing.assert_allclose(small.loss, exact.loss, atol=1e-5)
    np.testing.assert_allclose(small.loss[small.converged], exact.loss[small.converged], atol=1e-5)
    assert small.converged.mean() > 0.99
    assert (small.loss - small.gap <= exact.loss).all()


def test_float32_is_kept_with_jax_at_64_bits():
    with jax.enable_x64(True):
        plan = jl.allocate(LAW, GROUP, budget=np.array([1e22], np.float32))
    assert plan.loss.dtype == np.float32
    np.testing.assert_allclose(plan.loss, jl.allocate(LAW, GROUP, budget=[1e22]).loss, atol=1e-5)


def test_bounds_that_exclude_each_other_are_infeasible_where_no_error_can_say_so():
    search = lambda low: jl.allocate(LAW, GROUP, budget=1e21, lower={"N": low}, upper={"N": 1e9})  # noqa: E731
    plan = jax.jit(search, compiler_options=QUICK)(1e10)
    assert not plan.feasible
    assert not plan.converged
    assert np.isinf(plan.gap)


def test_powers_of_two_below_one_are_themselves():
    cost = jl.costs.stream_memory(3e8)
    options = {"powers_of_two": "parallel_size", "lower": {"parallel_size": 0.2}}
    plan = jl.allocate(jl.laws["parallel"], "pile", budget=1e8, cost=cost, **options)
    assert plan.inputs.parallel_size == 0.25
    np.testing.assert_allclose(jl.laws["parallel"]("pile", plan.inputs), plan.loss, rtol=1e-6)


def test_new_numbers_compile_nothing_and_own_costs_take_batches():
    traces = []

    def cost(x, dollars):
        traces.append(1)
        return dollars * x.params * x.tokens

    price = np.array([1.0, 2.0])
    first = jl.allocate(LAW, GROUP, budget=1e20, cost=Partial(cost, dollars=price))
    before = len(traces)
    second = jl.allocate(LAW, GROUP, budget=3e20, cost=Partial(cost, dollars=3 * price))
    assert len(traces) == before
    np.testing.assert_allclose(first.inputs.params, second.inputs.params, rtol=1e-9)
    np.testing.assert_allclose(first.inputs.params, closed_form(C, 6e20 / price)[0], rtol=1e-8)


def test_a_large_batch_is_the_same_as_its_problems():
    budgets = np.geomspace(1e18, 1e24, 3000).reshape(2, 1500)
    plan = jl.allocate(LAW, GROUP, budget=budgets)
    np.testing.assert_allclose(plan.inputs.params, closed_form(C, budgets)[0], rtol=1e-8)


def test_constraints_that_exclude_each_other_are_said_to():
    plan = jl.allocate(FINITE, "all_data", budget=1e24, tokens=1e12, unique_tokens=[1e10, 1e12], max_epochs=4)
    assert plan.feasible.tolist() == [False, True]
    assert plan.converged.tolist() == [False, True]
    assert np.isinf(plan.gap[0])


@pytest.mark.parametrize(
    ("error", "options", "words"),
    [
        (TypeError, {}, "give budget or target, and not both"),
        (TypeError, {"budget": 1e20, "target": 2}, "give budget or target, and not both"),
        (TypeError, {"budget": 1e20, "params": 1, "tokens": 1}, "nothing is left to search for"),
        (TypeError, {"budget": 1e20, "size": 1e9}, "unknown input 'size'"),
        (TypeError, {"budget": 1e20, "lower": {"size": 1}}, "lower of 'size', which is not searched for"),
        (TypeError, {"budget": 1e20, "N": 1e9, "upper": {"N": 1e9}}, "upper of 'params', which is not searched for"),
        (TypeError, {"budget": 1e20, "integers": "x"}, "integers of 'x', which is not searched for"),
        (TypeError, {"budget": 1e20, "max_epochs": 4}, "max_epochs needs inputs called tokens and unique_tokens"),
        (TypeError, {"budget": 1e20, "cost": "training"}, "cost must be a function .*, not 'training'"),
        (TypeError, {"budget": 1e20, "cost": jl.costs.training_and_inference}, "call it with its numbers first"),
        (TypeError, {"budget": 1e20, "upper": 1e9}, "upper must be a dict of bounds by name, such as {'params': 1e9}"),
        (TypeError, {"target": "low"}, "target must hold numbers"),
        (TypeError, {"budget": "much"}, "budget must hold numbers"),
        (TypeError, {"budget": 1e20, "weights": [1]}, "has one output and takes no weights"),
        (ValueError, {"budget": [1e20, -1]}, "budget must be positive"),
        (ValueError, {"budget": 1e20, "params": [1e9, -1e9]}, "params must be greater than 0"),
        (ValueError, {"budget": np.nan}, "budget must be positive"),
        (ValueError, {"target": np.nan}, "target must be finite"),
        (ValueError, {"budget": 1e20, "lower": {"N": 0}}, "lower params must be positive"),
        (ValueError, {"budget": np.ones(2), "tokens": np.ones(3)}, "do not broadcast"),
        (
            ValueError,
            {"budget": 1e20, "lower": {"N": [1e9, 1e9]}, "upper": {"N": [1e10, 1e8]}},
            r"in problem \(1,\): the lower bound of params, 1e\+09, is above its upper bound, 1e\+08",
        ),
        (
            ValueError,
            {"budget": 1e20, "integers": "N", "lower": {"N": 1.2}, "upper": {"N": 1.7}},
            "the lower bound of params, 2, is above its upper bound, 1 for whole numbers",
        ),
        (
            ValueError,
            {"budget": [1e20, 1e16], "lower": {"N": 1e9, "D": 1e9}},
            r"in problem \(1,\) is within the budget 1e\+16; the cost at the lower bounds is 6e\+18",
        ),
        (
            ValueError,
            {"budget": 1e20, "powers_of_two": "N", "lower": {"N": 5}, "upper": {"N": 7}},
            "the lower bound of params, 8, is above its upper bound, 4 for powers of two",
        ),
        (ValueError, {"budget": np.inf}, "budget must be finite"),
        (ValueError, {"budget": 1e20, "upper": {"N": np.inf}}, "upper params must be finite"),
        (TypeError, {"budget": 1e20, "cost": 5}, "cost must be a function"),
        (
            TypeError,
            {"budget": 1e20, "cost": lambda x: x.params * x.tokens * np.ones(2)},
            r"cost must return one number, not an array of shape \(2,\)",
        ),
        (ValueError, {"target": 1.5}, r"reaches the target 1.5; the loss at the upper bounds is 1\.818"),
    ],
)
def test_misuse_is_one_clear_error(error, options, words):
    with pytest.raises(error, match=f"^(chinchilla:? .*)?{words}") as caught:
        jl.allocate(LAW, GROUP, **options)
    assert "\n" not in str(caught.value)


def test_laws_that_the_cost_does_not_fit_say_so():
    with pytest.raises(TypeError, match="needs an input called tokens, which parallel does not have; give cost="):
        jl.allocate(jl.laws["parallel"], "pile", budget=1e20)
    with pytest.raises(TypeError, match="needs an input in parameters, which sft does not have; give cost="):
        jl.allocate(jl.laws["sft"], 0, budget=1e20)
    with pytest.raises(TypeError, match="domain_mixture: give proportions; allocate searches for numbers"):
        jl.allocate(jl.laws["domain_mixture"], "70M", budget=1e20)
    with pytest.raises(TypeError, match="a law such as"):
        jl.allocate("chinchilla", GROUP, budget=1e20)


def test_costs_are_what_they_say():
    x = jl.laws["moe"].inputs(dense_parameter_count=3e9, num_experts=8)
    for share, experts in itertools.product((0.0, 0.5, 1.0), (1, 2)):
        dense, one = 3e9 * (1 - share), 3e9 * share
        assert jl.costs.moe_total(share)(x) == pytest.approx(dense + 8 * one)
        assert jl.costs.moe_active(share, experts)(x) == pytest.approx(dense + experts * one)
    y = jl.laws["parallel"].inputs(num_params=1e9, parallel_size=4)
    assert jl.costs.stream_memory(1e8, bytes_per_param=4)(y) == pytest.approx(4.4e9)
    assert jl.costs.stream_latency(1e12, 1e15, 1e8)(y) == pytest.approx(2.4e9 / 1e12 + 8e9 / 1e15)


def test_inputs_that_nothing_keeps_from_growing_or_vanishing_are_asked_for():
    law, group = jl.laws["precision"], "table2"
    with pytest.raises(ValueError, match=r"precision: weight_bits costs nothing, .* upper=\{'weight_bits': ...\}, or"):
        jl.allocate(law, group, budget=1e22)
    most = dict.fromkeys(("weight_bits", "activation_bits", "kv_bits"), 16)
    plan = jl.allocate(law, group, budget=1e22, upper=most)
    assert plan.at_upper.weight_bits
    np.testing.assert_allclose(plan.loss, jl.allocate(law, group, budget=1e22, **most).loss, rtol=1e-9)
    with pytest.raises(ValueError, match="quantization: nothing keeps tokens from vanishing; give tokens"):
        jl.allocate(jl.laws["quantization"], "table2", budget=1e22, weight_bits=4)
    with pytest.raises(TypeError, match=r"step_law has no loss to minimise; .* learning_rate, batch_size"):
        jl.allocate(jl.laws["step_law"], "dense", budget=1e22)


def test_bounds_that_make_sense_are_kept_by_default():
    law = jl.laws["sparsity"]
    plan = jl.allocate(law, "table3", budget=1e8, cost=jl.costs.moe_total(), tokens=1e11)
    np.testing.assert_allclose(plan.inputs.active_share, 1, rtol=1e-9)
    plan = jl.allocate(jl.laws["fine_grained_moe"], "dense", budget=1e20, cost=jl.costs.fine_grained(1))
    np.testing.assert_allclose(plan.inputs.granularity, 1, rtol=1e-9)


def test_what_is_not_finite_is_part_of_a_search(looked_for):
    assert jl.allocate(LAW, GROUP, budget=5.76e23).converged
