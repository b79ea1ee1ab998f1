"""Fits of runs that are few, far from the law, or where a start leads nowhere."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
import sampling

import jaxlaws as jl

CHINCHILLA = jl.laws["chinchilla"]
SEEDS, COUNTS = range(40), (8, 13, 40)


def made(law, group, count, noise, seed=0):
    """Runs of a group with relative noise."""
    loss = np.asarray(law(group, sampling.inputs(law, count, seed=seed))).reshape(count, -1)
    loss = loss * np.exp(noise * np.random.default_rng(seed).normal(size=loss.shape))
    return sampling.columns(law, count, seed=seed) | dict(zip(law.output_columns, loss.T, strict=True))


@functools.cache
def few_runs():
    """A fit of groups of as many runs as `COUNTS` says, with the noise of each of the seeds."""
    tables = [
        made(CHINCHILLA, "besiroglu2024", count, 0.01, seed) | {"group": [f"{count} {seed}"] * count}
        for count in COUNTS
        for seed in SEEDS
    ]
    table = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    return jl.fit(CHINCHILLA, table, starts=16)


@pytest.mark.parametrize("runs", COUNTS)
def test_robust_errors_of_few_runs_are_of_the_size_of_the_spread(runs):
    fit, groups = few_runs(), [f"{runs} {seed}" for seed in SEEDS]
    told = [name for name in groups if np.isfinite(fit.stderr[name].E)]
    assert len(told) > len(groups) / 2
    said = np.median([fit.stderr[name].E for name in told])
    spread = np.std([fit.coefs[name].E for name in told])
    assert 0.3 * spread < said < 3 * spread


def test_a_start_that_leads_nowhere_is_not_the_best():
    law = jl.laws["data_mixing"]
    good = {"c": np.ones((1, 5)), "t": np.full((1, 5, 5), -1.0)}
    both = {"c": np.ones((2, 5)), "t": np.stack([np.full((5, 5), -1.0), np.full((5, 5), 1e4)])}
    table = made(law, "pile_70m", 12, 0.01)
    one, two = (jl.fit(law, table, starts=starts) for starts in (good, both))
    assert two.value["all_data"] == pytest.approx(one.value["all_data"])
    assert two.scores.r2 > 0.9


def test_a_group_without_a_fit_leaves_the_others_theirs():
    law = jl.laws["data_constrained"]
    good = made(law, "all_data", 40, 0.003)
    bad = made(law, "all_data", 40, 0.003, seed=1)
    outliers = np.random.default_rng(0).random(40) < 0.2
    bad["loss"] = np.where(outliers, bad["loss"] * 30, bad["loss"])
    fit, twice = (
        jl.fit(
            law,
            {name: np.concatenate([good[name], other[name]]) for name in good}
            | {"group": ["good"] * 40 + ["bad"] * 40},
            objective="huber_log",
            shared=(),
            starts=8,
        )
        for other in (bad, good)
    )
    assert fit.converged["good"]
    for name in ("good", "bad"):  # as next to itself
        assert fit.value["good"] == pytest.approx(twice.value[name], rel=1e-6)
        np.testing.assert_allclose(*(jax.tree.leaves(x) for x in (fit.stderr["good"], twice.stderr[name])), rtol=1e-6)
    # Outliers take nothing from it, either.
    error = np.log(np.asarray(law("all_data", {name: bad[name] for name in law.input_columns})) / bad["loss"])
    size = np.minimum(np.abs(error), 1e-3)
    assert fit.value["bad"] < (size * (np.abs(error) - size / 2)).sum()


def test_errors_are_not_zero_where_no_run_is_near_a_robust_law():
    size = np.repeat(np.geomspace(200, 4e5, 10), 2)
    loss = (1 + 5 * size**-0.3) * np.tile([0.95, 1.05], 10)
    fit = jl.fit(jl.laws["sft"], {"sft_data_size": size, "sft_loss": loss}, objective="huber_log")
    errors = fit.stderr["all_data"]
    assert all(error > 1e-2 for error in (errors.L_inf, errors.A, errors.alpha))


def fit_that_leads_nowhere():
    """A fit of two groups, in one of which no start leads anywhere."""
    law = jl.laws["data_constrained"]
    table = sampling.columns(law, 40, seed=0)
    good = np.abs(np.asarray(law("all_data", sampling.inputs(law, 40, seed=0))))
    good = good * np.exp(0.02 * np.random.default_rng(0).normal(size=40))
    bad = np.full(40, 5e-324)  # to which the ratio of any prediction is infinite
    both = {name: np.tile(values, 2) for name, values in table.items()} | {"loss": np.concatenate([good, bad])}
    table = both | {"group": ["good"] * 40 + ["bad"] * 40}
    return jl.fit(law, table, objective="huber_log", shared=(), starts=8)


def test_where_no_start_leads_anywhere_nothing_is_told():
    fit = fit_that_leads_nowhere()
    assert np.isinf(fit.value["bad"])
    assert not fit.converged["bad"]
    assert "the search did not converge" in fit.flags["bad"]
    assert np.isnan(jax.tree.leaves(fit.stderr["bad"])).all()
    assert fit.converged["good"]
    assert np.isfinite(jax.tree.leaves(fit.coefs["good"])).all()


def test_what_is_not_finite_is_part_of_a_fit(looked_for):
    assert fit_that_leads_nowhere().converged["good"]


def test_the_repr_of_a_fit_says_what_its_r2_is_worth():
    few = jl.fit(CHINCHILLA, {"params": [1e9, 2e9], "tokens": [2e10, 3e10], "loss": [2.5, 2.4]}, starts=16)
    assert "2 runs, no more runs than coefficients" in repr(few)
    assert "R2" not in repr(few)
    size = np.geomspace(200, 4e5, 12)
    runs = {"sft_data_size": size, "sft_loss": 1 + 5 * size**-0.3}
    some = jl.fit(jl.laws["sft"], runs | {"group": list("aaaaaaaaaabb")})
    assert "12 runs, R2 1.000000, no more runs than coefficients in 1 of the groups" in repr(some)
    held = jl.hold_out(jl.laws["sft"], runs, size > 1e5)
    assert f", {np.sum(size <= 1e5)} runs, R2 1.000000>" in repr(held.fit)


def test_the_repr_of_draws_says_how_many_of_them_converged():
    coefs = CHINCHILLA.groups["besiroglu2024"]
    drawn = CHINCHILLA.coefs(**{name: np.full(4, x) for name, x in jl.as_dict(coefs).items()})
    for share, words in ((1.0, "4 draws>"), (0.31, "4 draws, 31% of them converged>"), (np.nan, "4 draws>")):
        draws = jl.Draws(law=CHINCHILLA, coefs={"a": drawn}, best={"a": coefs}, converged={"a": share})
        assert repr(draws).endswith(words)


@pytest.mark.parametrize("pressed", [False, True])
def test_a_coefficient_on_its_bound_is_known_only_if_it_would_go_beyond(pressed):
    random, params = np.random.default_rng(1), np.geomspace(1e8, 1e10, 30)
    tokens = random.permutation(np.geomspace(1e10, 1e12, 30)) if pressed else np.full(30, 1e11)
    loss = 1.8 + 600 * params**-0.36 - (2e3 if pressed else 0) * tokens**-0.4
    runs = {"params": params, "tokens": tokens, "loss": loss * (1 + 0.003 * random.normal(size=30))}
    fit = jl.fit(CHINCHILLA, runs, objective="squared", bounds={"B": (0, 1e-9)})
    assert fit.coefs["all_data"].B == 0 or not pressed
    assert ("on a bound: B" in fit.flags["all_data"]) is pressed
    assert ("the runs do not tell: E, B, beta" in fit.flags["all_data"]) is not pressed
    interval = jl.predict_interval(fit, "all_data", params=1e9, tokens=1e13)
    assert np.isfinite(interval.high) == pressed
