"""Numbers that the sources of laws print, and what the laws give for them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_catalogue_identities import value

import jaxlaws as jl

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")]

# FLOP of training as in the table of runs that Tao et al. 2024 publish: vocabulary, width, characters, parameters.
VOCABULARY_RUNS = [
    (4096, 512, 180820540.85207617, 33222784, 1.271517696e16),
    (96256, 512, 5170557756.965066, 33222784, 5.940421632e17),
    (4096, 768, 452051352.13019043, 84834176, 7.91819136e16),
]


def test_flop_of_a_vocabulary_are_those_of_the_authors():
    law = jl.laws["vocabulary"]
    for words, width, characters, params, flop in VOCABULARY_RUNS:
        x = law.inputs(vocab_size=words, width=width, characters=characters, non_vocab_params=params)
        assert jl.costs.vocabulary()(x) == pytest.approx(flop, rel=1e-12)


def test_the_best_vocabulary_at_true_flop_is_smaller_than_that_published():
    """59,547 words, for FLOP of the tokens that the loss counts. All are tried, with the law written again."""
    law = jl.laws["vocabulary"]
    c, params, width, budget = law.groups["all_data"], 7e9, 4096, 7.05e21
    words = np.geomspace(4096, 1e6, 100_000)

    def per_character(words):
        return 0.00639222 * np.log(words) ** 2 - 0.15811069 * np.log(words) + 1.20470122

    def best(counted):
        characters = budget / (6 * (params + words * width) * counted)
        tokens = characters * per_character(words / 1e3)
        return words[np.argmin(c.A2 * (words * width / 1e6) ** -c.alpha2 + c.B * (tokens / 1e9) ** -c.beta)]

    assert best(per_character(words / 1e3)) == pytest.approx(59547, rel=1e-3)
    plan = jl.allocate(
        *(law, "all_data"),
        budget=budget,
        cost=jl.costs.vocabulary(),
        integers=(),
        lower={"vocab_size": 4096},
        upper={"vocab_size": 1e6},
        non_vocab_params=params,
        width=width,
    )
    assert plan.inputs.vocab_size == pytest.approx(best(per_character(words)), rel=1e-3)
    assert plan.inputs.vocab_size == pytest.approx(34_789, rel=1e-3)


def test_the_settings_of_the_step_law_to_all_digits():
    """The tool of its authors gives 9.347e-4 and 4.997e6."""
    found = value(jl.laws["step_law"], "dense_mean", params=7e9, tokens=1.4e12)
    assert [f"{x:.3e}" for x in found] == ["9.347e-04", "4.997e+06"]


def test_intervals_of_the_step_law_are_those_of_its_fits():
    """90 % of the 1,000 fits in its repository have these learning rates."""
    found = jl.predict_interval(jl.laws["step_law"], "dense_mean", params=7e9, tokens=1.4e12)
    np.testing.assert_allclose([found.low[0], found.high[0]], [7.871e-4, 1.1018e-3], rtol=0.015)


def test_both_laws_of_learning_rates_agree():
    """On the same runs."""
    law, rate, batch = jl.laws["lr_bsz"], np.geomspace(5e-4, 5e-3, 64), np.geomspace(128, 2048, 64)
    grid = {"lr": rate[:, None], "bsz": batch, "data_size": 1e11, "non_embedding_param_size": 1e9}
    losses = value(law, "all_data", **grid)
    i, j = np.unravel_index(losses.argmin(), losses.shape)
    found = value(jl.laws["step_law"], "dense", params=1e9, tokens=1e11)
    np.testing.assert_allclose([rate[i], 2048 * batch[j]], found, rtol=0.15)


@pytest.mark.parametrize(("params", "rate", "batch"), [(7e9, 4.2e-4, 9.4e6), (67e9, 3.2e-4, 18.9e6)])
def test_settings_of_deepseek_are_those_it_was_trained_with(params, rate, batch):
    """On 2e12 tokens."""
    found = value(jl.laws["deepseek"], "deepseek", compute=6 * params * 2e12)
    np.testing.assert_allclose(found[:2], [rate, batch], rtol=0.025)


def test_a_model_to_be_served_is_smaller_and_sees_more_data():
    """For 1e11 tokens a model of 7e9 parameters should have 6e9 and 1.18 times the data (Sardana et al. 2024)."""
    law, group = jl.laws["chinchilla"], "hoffmann2022"
    c = law.groups[group]
    tokens = (c.beta * c.B / (c.alpha * c.A) * 7e9**c.alpha) ** (1 / c.beta)
    loss = c.E + c.A * 7e9**-c.alpha + c.B * tokens**-c.beta
    plan = jl.allocate(law, group, target=loss, cost=jl.costs.training_and_inference(1e11))
    assert plan.inputs.params == pytest.approx(6e9, rel=0.02)
    assert plan.inputs.tokens / tokens == pytest.approx(1.18, abs=0.02)


def test_four_epochs_cost_little():
    """Muennighoff et al. 2023 measured 0.5 % for 8.7e9 parameters; the law they fitted says 0.68 %."""
    found = value(jl.laws["repeated_data"], "c4", params=8.7e9, tokens=178e9, unique_tokens=np.array([44.5e9, 178e9]))
    assert found[0] / found[1] - 1 == pytest.approx(0.0068, abs=1e-4)


def test_the_split_that_the_source_of_repeated_data_uses_is_not_the_best():
    law, unique = jl.laws["repeated_data"], {"unique_tokens": 25e9}
    params = np.geomspace(4e9, 12e9, 4000)
    losses = value(law, "c4", params=params, tokens=9.3e21 / (6 * params), **unique)
    assert params[losses.argmin()] == pytest.approx(6.82e9, rel=0.01)
    assert value(law, "c4", params=6.34e9, tokens=242e9, **unique) - losses.min() == pytest.approx(0.00055, abs=2e-5)


@pytest.mark.parametrize(("group", "published"), [("s_base", 937e9), ("rl_r", 85e9), ("hash", 83e9)])
def test_experts_gain_nothing_at_the_size_that_was_published(group, published):
    """That of the printed digits is off by up to 2.7 times; those that were fitted again are the first groups."""
    law = jl.laws["routed"]
    assert list(law.groups)[:3] == ["s_base_refit", "rl_r_refit", "hash_refit"]
    sizes = np.geomspace(1e10, 1e13, 4000)
    gains = value(law, f"{group}_refit", params=sizes, num_experts=512.0) - value(
        law, f"{group}_refit", params=sizes, num_experts=1.0
    )
    assert sizes[np.abs(gains).argmin()] == pytest.approx(published, rel=0.25)
    assert gains[0] < 0 < gains[-1]


def test_sparser_models_are_larger_and_meet_each_token_with_fewer_parameters():
    """At 1e20 FLOP, as in Abnar et al. 2025."""
    params = np.geomspace(1e8, 1e11, 2000)
    best = [
        params[
            value(jl.laws["sparsity"], "table3", params=params, tokens=1e20 / 6 / (s * params), active_share=s).argmin()
        ]
        for s in (1.0, 0.02)
    ]
    np.testing.assert_allclose(best, [6.4e8, 1.7e10], rtol=0.02)
    assert 0.02 * best[1] < best[0]


def test_tokens_per_parameter_of_farseer_rise_with_compute():
    """About 20 at 1e20 to 1e21 FLOP, says the paper, and more beyond."""
    params = np.geomspace(1e8, 1e12, 2000)
    ratios = []
    for compute in (1e20, 1e21, 1e23, 1e25):
        tokens = compute / 6 / params
        ratios.append((tokens / params)[value(jl.laws["farseer"], "all_data", params=params, tokens=tokens).argmin()])
    np.testing.assert_allclose(ratios, [25, 26.5, 84, 730], rtol=0.03)


def test_large_runs_of_overtraining_are_predicted_as_its_authors_say(data):
    """Who print 0.7103 % and 0.7320 % of the C4 loss of their two largest runs."""
    runs = pd.read_csv(data / "gadre_overtraining.csv").set_index("name")
    for name, error in {"rpj-open_lm_1b-32.0": 0.007103, "rpj-open_lm_7b-1.0": 0.007320}.items():
        run = runs.loc[name]
        found = value(jl.laws["overtraining"], "redpajama", params=run.params, tokens=run.tokens)
        assert abs(found / run.loss_c4_val - 1) == pytest.approx(error, abs=2e-5)


def test_the_loss_of_overtraining_is_that_on_c4(data):
    runs = pd.read_csv(data / "gadre_overtraining.csv")
    for kind, group in {"c4_original": "c4", "rpj": "redpajama", "rw_original": "refinedweb"}.items():
        of = runs[runs.train_dataset == kind]
        found = value(jl.laws["overtraining"], group, params=of.params.to_numpy(), tokens=of.tokens.to_numpy())
        off = {name: np.median(np.abs(found / of[name] - 1)) for name in ("loss_c4_val", "loss_openlm_val")}
        assert off["loss_c4_val"] < 0.01
        assert off["loss_openlm_val"] > 0.05


@pytest.mark.parametrize(("group", "published"), [("stack", 0.9978), ("pile", 0.9987)])
def test_parscale_explains_its_runs_as_published(runs, group, published):
    """On those with 1, 2 and 4 streams."""
    of = pd.read_csv(runs("parallel")).query("group == @group")
    x = {name: of[name].to_numpy(float) for name in ("num_params", "parallel_size")}
    assert jl.evaluate(jl.laws["parscale"], group, {**x, "loss": of.loss.to_numpy()}).r2 == pytest.approx(
        published, abs=2e-4
    )
