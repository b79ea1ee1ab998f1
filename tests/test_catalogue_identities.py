"""How the laws of the catalogue are related: nested forms, limits, and the optima that were published."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from sampling import inputs

import jaxlaws as jl
from jaxlaws.catalogue.vocabulary import tokens

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")]

CHINCHILLA = jl.laws["chinchilla"]
FOREVER = 1e300


def coefs_of(name, group=None, **changed):
    """The coefficients of a group, or of the golden values of a law without groups."""
    law = jl.laws[name]
    return dataclasses.replace(law.groups[group] if group else law.golden[0][0], **changed)


def value(law, coefs, inputs=None, /, **named):
    """What a law gives, 8 rows at a time as in other tests, so that one program does for each law."""
    names = [v.name for v in jl.variables(law.inputs)]
    columns = np.broadcast_arrays(*(np.asarray((named or vars(inputs))[name], np.float64) for name in names))
    shape, columns = columns[0].shape, [column.ravel() for column in columns]
    parts = [[column[start : start + 8] for column in columns] for start in range(0, len(columns[0]), 8)]
    found = np.concatenate([law(coefs, law.inputs(**dict(zip(names, part, strict=True)))) for part in parts])
    return found.reshape((*shape, *found.shape[1:]))


def chinchilla(x, **coefs):
    return value(CHINCHILLA, CHINCHILLA.coefs(**coefs), params=x.params, tokens=x.tokens)


def same(found, expected, rtol=1e-13):
    np.testing.assert_allclose(found, expected, rtol=rtol)


def test_skaling_with_an_exponent_of_1_is_chinchilla():
    law = jl.laws["skaling"]
    x, (E, A, B, alpha, beta) = inputs(law, 50), (1.7, 400.0, 2000.0, 0.34, 0.36)
    same(
        value(law, law.coefs(E=E, A=A, B=B, alpha=alpha, beta=beta, k=1.0), x),
        chinchilla(x, E=E, A=A, B=B, alpha=alpha, beta=beta),
    )


def test_data_that_are_not_repeated_are_those_of_chinchilla():
    law, c = jl.laws["repeated_data"], coefs_of("repeated_data", "c4")
    x = inputs(law, 200)
    x = dataclasses.replace(x, tokens=np.minimum(x.tokens, x.unique_tokens))
    needed = 0.05098651765367832 * x.tokens  # as the exponents are the same
    x = dataclasses.replace(x, params=np.minimum(x.params, needed))
    assert (x.params == needed).any()
    assert (x.params < needed).any()
    same(value(law, c, x), chinchilla(x, E=c.E, A=c.A, B=c.B, alpha=c.alpha, beta=c.beta))


def test_repeats_are_worth_a_limited_number_of_new_tokens():
    law, c = jl.laws["repeated_data"], coefs_of("repeated_data", "c4")
    unique = 1e9
    x = {"params": 1e7, "unique_tokens": unique}
    endless = value(law, c, tokens=1e6 * unique, **x)
    new = value(law, c, tokens=(1 + c.R_D) * unique, params=1e7, unique_tokens=(1 + c.R_D) * unique)
    same(endless, new)
    first, second = (value(law, c, tokens=(1 + epochs) * unique, **x) for epochs in (1, 2))
    assert endless < second < first < value(law, c, tokens=unique, **x)


def test_with_many_bits_precision_is_chinchilla():
    law, c = jl.laws["precision"], coefs_of("precision", "table2")
    x = inputs(law, 50)
    many = np.full(50, FOREVER)
    found = value(law, c, params=x.params, tokens=x.tokens, weight_bits=many, activation_bits=many, kv_bits=many)
    same(found, chinchilla(x, E=c.E, A=c.A, B=c.B, alpha=c.alpha, beta=c.beta))


def test_too_few_bits_count_for_nothing():
    law, c = jl.laws["precision"], coefs_of("precision", "table2")
    at = np.array([0.99, 1.01]) * c.n_a * c.gamma_a
    assert np.isinf(
        value(law, c, params=1e9, tokens=1e10, weight_bits=16, activation_bits=at, kv_bits=16)
    ).tolist() == [1, 0]


def test_rounding_to_many_bits_costs_nothing_and_to_few_more_after_more_tokens():
    law = jl.laws["quantization"]
    assert value(law, "table2", params=1e9, tokens=1e12, weight_bits=1e4) == 0
    little, much = value(law, "table2", params=1e9, tokens=[1e10, 1e12], weight_bits=4.0)
    same(much / little, 100**0.5068, rtol=1e-6)


@pytest.mark.parametrize("group", ["stack", "pile"])
def test_one_stream_is_a_power_law_of_parameters(group):
    law, c = jl.laws["parscale"], coefs_of("parscale", group)
    n = np.geomspace(1e8, 1e10, 20)
    same(value(law, group, num_params=n, parallel_size=1.0), c.E + (c.A / n) ** c.alpha)
    same(
        value(law, group, num_params=n, parallel_size=8.0),
        value(law, group, num_params=n * (c.k * math.log(8) + 1), parallel_size=1.0),
    )


def test_without_granularity_experts_are_dense():
    law = jl.laws["fine_grained_moe"]
    c = coefs_of("fine_grained_moe", "moe", g=0.0)
    n, d = np.geomspace(1e8, 1e10, 20), 1e11
    x = CHINCHILLA.inputs(params=n, tokens=np.full(20, d))
    same(
        value(law, c, params=n, tokens=d, granularity=4.0),
        chinchilla(x, E=c.c, A=c.a, B=c.b, alpha=c.alpha, beta=c.beta),
    )
    endless = value(law, "moe", params=n, tokens=d, granularity=FOREVER)
    same(endless, value(law, c, params=n, tokens=d, granularity=1.0))


def test_a_fixed_number_of_tokens_per_parameter_gives_a_power_law_of_compute():
    law, c = jl.laws["overtraining"], coefs_of("overtraining", "c4")
    compute = np.geomspace(1e18, 1e24, 13)
    for ratio in (20.0, 640.0):
        params = np.sqrt(compute / (6 * ratio))
        found = value(law, c, params=params, tokens=ratio * params)
        same(found, c.E + (c.a * ratio**c.eta + c.b * ratio**-c.eta) * compute**-c.eta)


def test_the_error_on_tasks_is_that_of_knowing_nothing_at_a_large_loss():
    law = jl.laws["task_error"]
    for group, c in law.groups.items():
        same(value(law, group, loss=1e3), c.epsilon)


def test_dense_models_are_those_whose_tokens_meet_all_parameters():
    law, c = jl.laws["sparsity"], coefs_of("sparsity", "table3")
    n, d = 1e9, np.geomspace(1e9, 1e12, 20)
    x = CHINCHILLA.inputs(params=np.full(20, n), tokens=d)
    dense = chinchilla(x, E=c.e + c.c + c.d * n**-c.gamma, A=c.a, B=c.b, alpha=c.alpha, beta=c.beta)
    same(value(law, c, params=n, tokens=d, active_share=1.0), dense)


def test_routed_experts_are_level_beyond_the_largest_number():
    law = jl.laws["routed"]
    for group, c in law.groups.items():
        log_n = np.log10(3e8)
        most = np.log10(c.E_max)
        limit = 10 ** (c.a * log_n + c.b * most + c.c * log_n * most + c.d)
        same(value(law, group, params=3e8, num_experts=1e300), limit, rtol=1e-12)
        start = np.log10(c.E_start)
        one = 10 ** (c.a * log_n + c.b * start + c.c * log_n * start + c.d)
        same(value(law, group, params=3e8, num_experts=1.0), one, rtol=1e-12)


def test_the_two_curves_of_fine_tuning_are_one():
    rectified, saturated = jl.laws["rectified_sft"], jl.laws["sft_saturated"]
    size = np.geomspace(200, 4e5, 20)
    for c in list(saturated.groups.values())[:5]:
        mid = math.exp(c.alpha * c.log_n0)
        other = rectified.coefs(E=c.E, B=c.A * mid, D_l=mid, beta=c.alpha)
        same(value(rectified, other, sft_data_size=size), value(saturated, c, sft_data_size=size), rtol=1e-12)


def test_a_break_that_adds_nothing_is_none():
    law = jl.laws["broken_power"]
    c = coefs_of("broken_power", c1=0.0)
    x = np.geomspace(1, 1e12, 30)
    same(value(law, c, x=x), c.a + c.b * x**-c.c0)
    c = coefs_of("broken_power")
    far = np.array([1e30, 1e31])
    same(np.diff(np.log(value(law, dataclasses.replace(c, a=0.0), x=far)))[0] / math.log(10), -(c.c0 + c.c1), rtol=1e-9)


def test_a_student_of_a_model_that_it_can_follow_ends_at_its_teacher():
    law, c = jl.laws["distillation"], coefs_of("distillation", "busbridge2025")
    same(value(law, c, params=FOREVER, tokens=FOREVER, teacher_loss=[1.8, 2.5]), [1.8, 2.5])


def test_domains_that_help_themselves_alone():
    both, alone = jl.laws["mixture_power"], jl.laws["bimix"]
    b = coefs_of("bimix", B=np.zeros(2))
    found = both(both.coefs(F=np.diag(b.C), a=np.diag(b.alpha)), proportions=[0.3, 0.7])
    same(found, alone(b, proportions=[0.3, 0.7], steps=1e4))


@pytest.mark.parametrize("name", ["chinchilla", "skaling", "kaplan", "overtraining", "precision", "fine_grained_moe"])
def test_endless_parameters_leave_the_part_of_the_tokens(name):
    law = jl.laws[name]
    group, c = next(iter(law.groups.items()))
    x = dataclasses.replace(inputs(law, 20), params=np.full(20, FOREVER))
    tokens = {
        "kaplan": lambda d: (c.D_c / d) ** c.alpha_D,
        "skaling": lambda d: c.E + (c.B * d**-c.beta) ** c.k,
        "overtraining": lambda d: c.E + c.b * (6 * d * d) ** -c.eta,
        "fine_grained_moe": lambda d: c.c + c.b * d**-c.beta,
    }.get(name, lambda d: c.E + c.B * d**-c.beta)
    same(value(law, group, x), tokens(x.tokens), rtol=1e-12)


def test_endless_tokens_leave_the_part_of_the_parameters():
    c = coefs_of("kaplan", "table2")
    same(value(jl.laws["kaplan"], c, params=1e9, tokens=FOREVER), (c.N_c / 1e9) ** c.alpha_N)
    c = coefs_of("farseer", "all_data")
    same(value(jl.laws["farseer"], c, params=1e9, tokens=FOREVER), math.exp(c.s * 1e9**c.q + c.S))


# What was published: settings, and optima.


@pytest.mark.parametrize(("group", "of_lr", "of_batch"), [("dense", 0.02, 4e-4), ("dense_mean", 8e-4, 1.3e-3)])
def test_the_settings_of_the_step_law_are_those_published(group, of_lr, of_batch):
    """To what the printed digits of its exponents tell: the published values are of more."""
    lr, batch = value(jl.laws["step_law"], group, params=7e9, tokens=1.4e12)
    assert abs(lr / 9.347e-4 - 1) < of_lr
    assert abs(batch / 4.997e6 - 1) < of_batch


def test_losses_of_overtraining_are_those_published():
    """To what the six digits of the coefficients tell."""
    found = jl.laws["overtraining"](["c4", "redpajama", "refinedweb"], params=1e9, tokens=2e10)
    np.testing.assert_allclose(found, [2.740370, 2.862869, 2.846359], rtol=0, atol=2e-5)


def test_model_and_tokens_of_deepseek_use_the_compute_up():
    compute = np.geomspace(1e17, 1e25, 9)
    *_, model, tokens = np.moveaxis(value(jl.laws["deepseek"], "deepseek", compute=compute), -1, 0)
    np.testing.assert_allclose(model * tokens, compute, rtol=2e-4)


def test_the_best_vocabulary_of_a_model_of_7e9_parameters_is_the_one_published():
    """At the compute that it is published for, 7.1e21 FLOP, if these are of the tokens that the loss counts."""

    def cost(x):
        return 6 * (x.non_vocab_params + x.vocab_size * x.width) * tokens(x.vocab_size / 1e3, x.characters)

    ends = {"lower": {"vocab_size": 4096}, "upper": {"vocab_size": 1e6}}
    sizes = {"non_vocab_params": 7e9, "width": 4096}
    best = jl.allocate(jl.laws["vocabulary"], "all_data", budget=7.1e21, cost=cost, integers=(), **ends, **sizes)
    assert abs(best.inputs.vocab_size / 59547 - 1) < 2e-3
