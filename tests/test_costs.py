"""What laws and their costs have as optima: against conditions and tables that were published, closed forms, SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUICK
from scipy.optimize import brentq, minimize_scalar
from test_allocate import by_eights

import jaxlaws as jl

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")  # answers far from all runs are answers here

SERVED = np.array([0.0, 1e11, 1e13])
# What else a law is given.
SIZES_AND_TOKENS = {
    "kaplan": {},
    "skaling": {},
    "overtraining": {},
    "repeated_data": {"unique_tokens": 3e10},
    "sparsity": {"active_share": 0.1},
    "precision": {"weight_bits": 8, "activation_bits": 6, "kv_bits": 4},
}


@pytest.mark.parametrize("name", SIZES_AND_TOKENS)
def test_serving_makes_models_smaller_by_the_published_condition(name):
    """At the optimum the loss falls by ln(params) 1 + served / (3 * tokens) times as fast as by ln(tokens)."""
    law, given, budget = jl.laws[name], SIZES_AND_TOKENS[name], 1e22
    group = next(iter(law.groups))
    plan = jl.allocate(law, group, budget=budget, cost=jl.costs.training_and_inference(SERVED), **given)
    at = {"params": np.asarray(plan.inputs.params), "tokens": np.asarray(plan.inputs.tokens)}

    def fall(which):
        up, down = ({**at, which: at[which] * factor} for factor in (1.001, 0.999))
        down, up = (np.asarray(law(group, **changed, **given)) for changed in (down, up))
        return (down - up) / np.log(1.001 / 0.999)

    np.testing.assert_allclose(fall("params") / fall("tokens"), 1 + SERVED / (3 * at["tokens"]), rtol=1e-5)
    share = given.get("active_share", 1.0)
    for i, served in enumerate(SERVED):

        def loss(x, served=served):
            tokens = (budget / (share * np.exp(x)) - 2 * served) / 6
            return float(np.asarray(law(group, params=np.exp([x]), tokens=np.array([tokens]), **given))[0])

        most = np.log(budget / share / (2 * served + 6e6))
        found = minimize_scalar(loss, bounds=(np.log(1e6), most), method="bounded", options={"xatol": 1e-9})
        np.testing.assert_allclose(plan.loss[i], found.fun, rtol=1e-11)
        np.testing.assert_allclose(at["params"][i], np.exp(found.x), rtol=1e-5)
    assert plan.convex.all()
    assert plan.gap.max() < 1e-11


def test_the_best_share_of_experts_at_a_given_size():
    law, sizes = jl.laws["sparsity"], np.array([1e9, 1e10, 1e11])
    plan = jl.allocate(law, "table3", budget=1e21, params=sizes, upper={"active_share": 1})
    shares = np.geomspace(1e-3, 1, 20001)
    losses = law("table3", params=sizes[:, None], tokens=1e21 / (6 * sizes[:, None] * shares), active_share=shares)
    np.testing.assert_allclose(plan.loss, losses.min(1), rtol=1e-7)
    np.testing.assert_allclose(plan.inputs.active_share, shares[losses.argmin(1)], rtol=1e-3)
    np.testing.assert_allclose(6 * sizes * plan.inputs.active_share * plan.inputs.tokens, 1e21, rtol=1e-9)
    assert (np.diff(plan.inputs.active_share) < 0).all()  # larger models are best sparser
    assert plan.convex.all()


def test_the_best_bits_are_the_same_for_all_budgets():
    """Where the loss by ln(params) and ln(bits) changes as the cost does: exp(b/g - n) - 1 = sum(b) / g for each b."""
    law = jl.laws["precision"]
    c = law.groups["table2"]
    scales, least = np.array([c.gamma_w, c.gamma_a, c.gamma_kv]), np.array([c.n_w, c.n_a, c.n_kv])
    total = brentq(lambda s: np.sum(scales * (least + np.log1p(s / scales))) - s, 1, 100)
    budgets = np.array([[1e20], [1e24]])
    plan = jl.allocate(law, "table2", budget=budgets, cost=jl.costs.training_in_bits([0.0, 1e12]))
    found = np.stack([plan.inputs.weight_bits, plan.inputs.activation_bits, plan.inputs.kv_bits])
    expected = (scales * (least + np.log1p(total / scales)))[:, None, None]
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-6)
    flop = plan.inputs.params * (6 * plan.inputs.tokens + [0.0, 2e12]) * total / 3 / 16
    np.testing.assert_allclose(flop, np.broadcast_to(budgets, flop.shape), rtol=1e-9)
    assert plan.convex.all()
    assert plan.gap.max() < 1e-11


def test_where_all_numbers_have_the_same_bits_seven_are_best():
    """As in Kumar et al. 2024, who find 7 to 8."""
    law, bits = jl.laws["precision"], np.arange(4, 12, 0.01)
    same = dict.fromkeys(("weight_bits", "activation_bits", "kv_bits"), bits)
    plan = by_eights(law, "table2", cost=jl.costs.training_in_bits(), budget=np.full_like(bits, 1e22), **same)
    np.testing.assert_allclose(bits[plan.loss.argmin()], 7.0, atol=0.01)


def test_mixtures_of_fine_grained_experts_are_those_published():
    """The compute-optimal models of Krajewski et al. 2024, whose coefficients are known to three digits or less."""
    budget = [2.95e18, 1.93e20, 1.41e21, 6.46e21, 4.16e23, 5.69e24, 4.97e25]
    plan = jl.allocate(
        *(jl.laws["fine_grained_moe"], "moe"),
        budget=budget,
        cost=jl.costs.fine_grained(64),
        powers_of_two="granularity",
    )
    met = plan.inputs.params * 12 / (4 + 8 * 64)
    np.testing.assert_allclose(met, [1e8, 1e9, 3e9, 7e9, 7e10, 3e11, 1e12], rtol=0.1)
    tokens = [4.37e9, 28.94e9, 72.90e9, 137.60e9, 941.07e9, 2.96e12, 7.94e12]
    np.testing.assert_allclose(plan.inputs.tokens, tokens, rtol=0.1)
    assert plan.inputs.granularity.tolist() == [8, 16, 16, 32, 32, 64, 64]
    np.testing.assert_allclose(plan.loss, [3.133, 2.491, 2.245, 2.076, 1.694, 1.503, 1.367], rtol=0.012)
    assert plan.convex.all()


def test_a_teacher_costs_what_it_says_of_each_token():
    law, budget = jl.laws["distillation"], 3e21
    coefs = law.golden[0][0]
    numbers = {"teacher_params": [7e9, 7e9, 1e9], "teacher_tokens": [0.0, 5e10, 0.0], "inference_tokens": [0, 0, 1e12]}
    plan = jl.allocate(law, coefs, budget=budget, cost=jl.costs.distillation(**numbers), teacher_loss=2.2)
    sizes = np.geomspace(1e7, 1e11, 20001)
    for i, (size, taught, served) in enumerate(np.transpose(list(numbers.values()))):
        tokens = (budget - 6 * size * taught - 2 * sizes * served) / (6 * sizes + 2 * size)
        losses = np.asarray(law(coefs, params=sizes, tokens=np.maximum(tokens, 1.0), teacher_loss=2.2))
        losses = np.where(tokens > 0, losses, np.inf)
        np.testing.assert_allclose(plan.loss[i], losses.min(), rtol=1e-8)
        np.testing.assert_allclose(plan.inputs.params[i], sizes[losses.argmin()], rtol=5e-3)
    assert plan.converged.all()
    assert np.isinf(plan.gap).all()


def test_the_bits_to_serve_a_model_in():
    law = jl.laws["quantization"]
    c, tokens = law.groups["table2"], np.array([1e12, 1e13])
    plan = jl.allocate(law, "table2", target=0.01, cost=jl.costs.weight_bytes, params=7e9, tokens=tokens)
    bits = c.gamma * np.log(c.C * tokens**c.gamma_D * 7e9**-c.gamma_N / 0.01)
    np.testing.assert_allclose(plan.inputs.weight_bits, bits, rtol=1e-8)
    np.testing.assert_allclose(plan.cost, 7e9 * bits / 8, rtol=1e-8)


LAW, GROUP = jl.laws["chinchilla"], "besiroglu2024"
C = LAW.groups[GROUP]
RATIOS = np.array([0.0, 1.0, 100.0, 2000.0])


@pytest.mark.parametrize("kind", ["budget", "target"])
def test_tokens_per_parameter_are_at_least_those_asked_for(kind):
    plan = jl.allocate(LAW, GROUP, **{kind: {"budget": 1e22, "target": 2.2}[kind]}, min_tokens_per_param=RATIOS)
    ratios = plan.inputs.tokens / plan.inputs.params
    by_params, by_tokens = C.alpha * C.A * plan.inputs.params**-C.alpha, C.beta * C.B * plan.inputs.tokens**-C.beta
    np.testing.assert_allclose(by_params[:2], by_tokens[:2], rtol=1e-7)  # the best of all
    assert 1 < ratios[0] < 100
    for m, ratio, params, loss in zip(RATIOS[2:], ratios[2:], plan.inputs.params[2:], plan.loss[2:], strict=True):
        assert ratio == pytest.approx(m, rel=1e-7)
        at = lambda n, m=m: C.E + C.A * n**-C.alpha + C.B * (m * n) ** -C.beta  # noqa: E731
        size = np.sqrt(1e22 / 6 / m) if kind == "budget" else brentq(lambda n, at=at: at(n) - 2.2, 1e6, 1e12)
        assert params == pytest.approx(size, rel=1e-7)
        assert loss == pytest.approx(at(size), rel=1e-10)
    assert plan.convex.all()
    assert plan.gap.max() < 1e-11


def test_tokens_per_parameter_with_a_size_or_tokens_that_are_given():
    by_tokens = jl.allocate(LAW, GROUP, budget=1e24, tokens=1e12, min_tokens_per_param=RATIOS)
    np.testing.assert_allclose(by_tokens.inputs.params, [1e12 / 6, 1e12 / 6, 1e10, 5e8], rtol=1e-8)
    assert by_tokens.at_upper.params.tolist() == [False, False, True, True]
    by_size = jl.allocate(LAW, GROUP, target=2.2, params=3e9, min_tokens_per_param=RATIOS)
    least = ((2.2 - C.E - C.A * 3e9**-C.alpha) / C.B) ** (-1 / C.beta)
    np.testing.assert_allclose(by_size.inputs.tokens, np.maximum(least, RATIOS * 3e9), rtol=1e-8)
    with pytest.raises(
        ValueError, match=r"in problem \(2,\): the lower bound of tokens, 3e\+11, is above its upper bound"
    ):
        jl.allocate(LAW, GROUP, budget=1e22, params=3e9, min_tokens_per_param=RATIOS, upper={"tokens": 1e11})


@pytest.fixture(scope="module")
def slopes():
    """By how much the loss changes with the tokens per parameter asked for, and with the logarithm of the budget."""

    def loss(m, b):
        return jl.allocate(LAW, GROUP, budget=jnp.exp(b), min_tokens_per_param=m).loss

    with jax.enable_x64(True):
        slopes = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (0, None)), compiler_options=QUICK)
        return jax.tree.map(np.asarray, slopes(RATIOS, np.log(1e22)))


def test_the_loss_rises_with_tokens_per_parameter_as_its_derivative_says(slopes):
    m = RATIOS[2:]
    params, tokens = np.sqrt(1e22 / 6 / m), np.sqrt(1e22 / 6 * m)
    expected = (C.alpha * C.A * params**-C.alpha - C.beta * C.B * tokens**-C.beta) / 2 / m
    np.testing.assert_allclose(slopes[0], [0, 0, *expected], rtol=1e-7, atol=1e-12)


def test_the_loss_falls_with_the_budget_as_the_multiplier_says(slopes):
    plan = jl.allocate(LAW, GROUP, budget=1e22, min_tokens_per_param=RATIOS)
    np.testing.assert_allclose(slopes[1], plan.multiplier, rtol=1e-9)
    np.testing.assert_allclose(slopes[1][0], jl.allocate(LAW, GROUP, budget=1e22).multiplier, rtol=1e-9)


def test_both_ratios_hold_at_once():
    """Unique tokens are worth the most; 0 tokens per parameter and endless epochs are no bounds."""
    law = jl.laws["data_constrained"]
    options = {"min_tokens_per_param": RATIOS, "max_epochs": [[np.inf], [4.0]], "upper": {"unique_tokens": 1e10}}
    plan = jl.allocate(law, "all_data", budget=1e21, **options)
    assert plan.converged.all()
    assert (plan.inputs.tokens >= RATIOS * plan.inputs.params * (1 - 1e-9)).all()
    np.testing.assert_allclose(plan.inputs.tokens[1], 4e10, rtol=1e-8)
    np.testing.assert_allclose(plan.inputs.params[1], [1e21 / 24e10, 1e21 / 24e10, 4e8, 2e7], rtol=1e-8)
    np.testing.assert_allclose(plan.cost[0], 1e21, rtol=1e-8)


def test_costs_are_what_they_say():
    sparse = jl.laws["sparsity"].inputs(params=1e10, tokens=1e11, active_share=0.1)
    assert jl.costs.training(sparse) == pytest.approx(6e20)
    assert jl.costs.training_and_inference(1e12)(sparse) == pytest.approx(6e20 + 2e21)
    assert jl.costs.moe_total()(sparse) == pytest.approx(1e10)
    assert jl.costs.moe_active()(sparse) == pytest.approx(1e9)
    routed = jl.laws["routed"].inputs(params=3e9, num_experts=8)
    assert jl.costs.moe_total(0.5)(routed) == pytest.approx(13.5e9)
    assert jl.costs.moe_active(0.5, 2)(routed) == pytest.approx(4.5e9)
    bits = jl.laws["precision"].inputs(params=1e9, tokens=1e11, weight_bits=4, activation_bits=8, kv_bits=6)
    assert jl.costs.training_in_bits()(bits) == pytest.approx(6 / 16 * 1e9 * 1e11 * 6)
    assert jl.costs.training_in_bits(1e12)(bits) == pytest.approx(6 / 16 * (6e20 + 2e21))
    assert jl.costs.weight_bytes(bits) == pytest.approx(5e8)
    student = jl.laws["distillation"].inputs(params=1e9, tokens=1e11, teacher_loss=2.2)
    assert jl.costs.distillation(7e9)(student) == pytest.approx(6e20 + 1.4e21)
    assert jl.costs.distillation(7e9, 1e12, 1e13)(student) == pytest.approx(6e20 + 1.4e21 + 4.2e22 + 2e22)
    # 16 layers of width 1024: 12 * 1024**2 parameters meet a token in each.
    cut = jl.laws["fine_grained_moe"].inputs(params=16 * 1024**2 * (4 + 8 * 32), tokens=1e9, granularity=4)
    training = 16e9 * (6 * 12 * 1024**2 + 14 * 1024 * 32 * 4)
    assert jl.costs.fine_grained(experts=32)(cut) == pytest.approx(training)
    served = 16e9 * (2 * 12 * 1024**2 + 5 / 3 * 1024 * 32 * 4)
    assert jl.costs.fine_grained(32, 5.0, 1e9)(cut) == pytest.approx(16e9 * (72 * 1024**2 + 5 * 1024 * 128) + served)
    words = jl.laws["vocabulary"].inputs(non_vocab_params=7e9, vocab_size=6e4, width=4096, characters=1e12)
    per_character = 0.00639222 * np.log(6e4) ** 2 - 0.15811069 * np.log(6e4) + 1.20470122
    assert jl.costs.vocabulary()(words) == pytest.approx(6e12 * (7e9 + 6e4 * 4096) * per_character)
    words = jl.laws["vocab"].inputs(non_vocab_parameters=7e9, vocab_size=6e4, num_characters=1e12)
    assert jl.costs.vocabulary(4096)(words) == pytest.approx(6e12 * (7e9 + 6e4 * 4096) * per_character)
    assert jl.costs.moe_total()(cut) == cut.params
    tuned = jl.laws["lr_bsz"].inputs(lr=1e-3, bsz=128, data_size=1e11, non_embedding_param_size=1e9)
    assert jl.costs.training(tuned) == pytest.approx(6e20)
    dense = jl.laws["fine_grained_moe"].inputs(params=12e9, tokens=1e9, granularity=1)
    assert jl.costs.fine_grained(1, 0.0)(dense) == pytest.approx(6 * 12e9 * 1e9)


@pytest.mark.parametrize(
    ("name", "cost", "words"),
    [
        (
            "fine_grained_moe",
            jl.costs.training,
            r"does not know how many params of fine_grained_moe .* give cost=jl.costs.fine_grained\(experts=64\)",
        ),
        ("fine_grained_moe", jl.costs.training_and_inference(1e9), "does not know how many params of fine_grained_moe"),
        ("chinchilla", jl.costs.vocabulary(), "an input called vocab_size, which chinchilla does not have; give cost="),
        ("chinchilla", jl.costs.training_in_bits(), "an input called weight_bits, which chinchilla does not have"),
        ("quantization", jl.costs.training_in_bits(), "an input called activation_bits, which quantization does not"),
        (
            "chinchilla",
            jl.costs.weight_bytes,
            "an input called weight_bits, which chinchilla does not have; give cost=",
        ),
        ("chinchilla", jl.costs.moe_total(), "an input called num_experts, which chinchilla does not have; give cost="),
        ("chinchilla", jl.costs.stream_memory(5e8), "an input called parallel_size, which chinchilla does not have"),
        ("chinchilla", jl.costs.fine_grained(64), "an input called granularity, which chinchilla does not have"),
        ("moe", jl.costs.distillation(1e9), "an input called tokens, which moe does not have; give cost="),
    ],
)
def test_laws_that_a_cost_does_not_fit_say_so(name, cost, words):
    law = jl.laws[name]
    with pytest.raises(TypeError, match=words) as caught:
        jl.allocate(law, next(iter(law.groups)), budget=1e20, cost=cost)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "error", "words"),
    [
        (
            "parallel",
            20,
            TypeError,
            "parallel: min_tokens_per_param needs an input called tokens and one in parameters",
        ),
        ("chinchilla", -1.0, ValueError, "chinchilla: min_tokens_per_param must be finite, and not below 0"),
        ("chinchilla", np.inf, ValueError, "chinchilla: min_tokens_per_param must be finite, and not below 0"),
        ("chinchilla", "many", TypeError, "min_tokens_per_param must hold numbers"),
    ],
)
def test_misuse_of_tokens_per_parameter_is_one_clear_error(name, value, error, words):
    law = jl.laws[name]
    with pytest.raises(error, match=f"^{words}"):
        jl.allocate(law, next(iter(law.groups)), budget=1e20, min_tokens_per_param=value)
