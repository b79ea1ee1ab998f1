"""Fits end at their minimum, and report what they return, whatever the runs."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import reported
import sampling
from scipy.optimize import minimize

import jaxlaws as jl
from jaxlaws import testing
from jaxlaws.columns import from_columns
from jaxlaws.fitting.form import linear_fields

CHINCHILLA = jl.laws["chinchilla"]
SHARED = Path(__file__).parents[2] / "shared"


def given(name):
    """A table that no one here made, as a dict."""
    path = SHARED / name
    if not path.exists():
        pytest.skip("needs runs of others")
    table = jl.read_table(str(path))
    return {column: table[column].to_numpy(zero_copy_only=False) for column in table.column_names}


def errors(law, coefs, table, objective):
    """Errors of runs, from the text of the formula."""
    measured = np.stack([table[c] for c in law.output_columns], -1).astype(float)
    inputs = from_columns(law, [np.asarray(table[column], float) for column in law.input_columns])
    predicted = np.stack([testing.evaluated(law, coefs, inputs, row) for row in range(len(measured))])
    predicted = predicted.reshape(measured.shape)
    if objective == "squared":
        return predicted - measured
    return predicted / measured - 1 if objective == "relative" else np.log(predicted / measured)


def of_errors(error, objective):
    """The objective."""
    return reported.of_errors(error, objective).sum()


def check_reported(fit, table):
    """The value, the residuals and the scores of a fit are those of its coefficients."""
    group = table.get("group", np.zeros(len(fit.residuals))).astype(str)
    law, left = fit.law, np.reshape(fit.residuals, (len(group), -1))
    measured = np.stack([table[c] for c in law.output_columns], -1)
    predicted = np.zeros_like(measured, float)
    for name, coefs in fit.coefs.items():
        mine = group == name if "group" in table else np.ones(len(group), bool)
        runs = {column: np.asarray(values)[mine] for column, values in table.items()}
        assert fit.value[name] == pytest.approx(
            of_errors(errors(law, coefs, runs, fit.objective), fit.objective), rel=1e-9
        )
        predicted[mine] = measured[mine] + errors(law, coefs, runs, "squared")
    np.testing.assert_allclose(measured - left, predicted, rtol=1e-11)
    r2 = 1 - ((measured - predicted) ** 2).mean(0) / measured.var(0)
    assert fit.scores.r2 == pytest.approx(r2.mean(), abs=1e-9)


def grids(noise, sets=40):
    """Grids of 4 sizes and 4 lengths, with errors of the logarithm."""
    params, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 1e10, 4), np.geomspace(2e9, 2e11, 4)))
    loss = np.asarray(CHINCHILLA("besiroglu2024", params=params, tokens=tokens))
    loss = loss * np.exp(noise * np.random.default_rng(0).normal(size=(sets, 16)))
    table = {"params": np.tile(params, sets), "tokens": np.tile(tokens, sets), "loss": loss.ravel()}
    return table | {"group": np.repeat(np.arange(sets).astype(str), 16)}


@pytest.mark.parametrize("noise", [0.005, 0.01, 0.03])
def test_robust_fits_to_few_runs_end_at_their_minimum(noise):
    table = grids(noise)
    fit = jl.fit(CHINCHILLA, table, objective="huber_log")
    check_reported(fit, table)
    assert all(fit.converged.values())
    for group in ("0", "1", "2", "3"):
        mine = table["group"] == group
        params, tokens, loss = (np.log(table[name][mine]) for name in ("params", "tokens", "loss"))
        c = fit.coefs[group]

        def value(x, params=params, tokens=tokens, loss=loss):
            terms = [np.full_like(loss, x[0]), x[1] - x[3] * params, x[2] - x[4] * tokens]
            return of_errors(np.logaddexp.reduce(terms) - loss, "huber_log")

        start = np.array([np.log(max(c.E, 1e-300)), np.log(c.A), np.log(c.B), c.alpha, c.beta])
        assert value(start) == pytest.approx(fit.value[group], rel=1e-9)
        for seed in range(3):
            near = start * (1 + 1e-3 * np.random.default_rng(seed).normal(size=5))
            other = minimize(
                value, near, method="Nelder-Mead", options={"maxfev": 4000, "xatol": 1e-12, "fatol": 1e-18}
            )
            assert other.fun >= fit.value[group] * (1 - 1e-9)


def test_draws_of_few_runs_converge():
    table = grids(0.01, 8)
    draws = jl.bootstrap(jl.fit(CHINCHILLA, table, objective="huber_log"), 100)
    assert np.mean(list(draws.converged.values())) >= 0.995


def test_a_ladder_of_16_runs_predicts_what_its_authors_do():
    table = given("cases/ladder_arc_easy_test.csv")
    fit = jl.fit(CHINCHILLA, table)
    check_reported(fit, table)
    assert fit.converged["all_data"]
    assert fit.value["all_data"] <= 1.8165916056e-4  # what BFGS of SciPy finds from 60 starts
    assert float(CHINCHILLA(fit.coefs["all_data"], params=13e9, tokens=5e12)) == pytest.approx(0.5931, abs=2e-4)


def test_one_diverged_run_is_left_aside():
    table = given("cases/outlier20.csv")
    fit = jl.fit(CHINCHILLA, table)
    check_reported(fit, table)
    c = fit.coefs["all_data"]
    assert fit.converged["all_data"]
    assert fit.value["all_data"] == pytest.approx(0.0013851, abs=5e-8)
    assert (round(c.E, 3), round(c.alpha, 3)) == (1.824, 0.350)


@pytest.mark.parametrize("objective", ["squared", "relative", "huber_log"])
def test_what_a_fit_of_many_groups_reports_is_what_it_returns(objective):
    table = given("data/sldbench_sft_train.csv")
    fit = jl.fit(jl.laws["sft"], table, objective=objective)
    check_reported(fit, table)
    assert all(fit.converged.values())
    assert fit.scores.r2 > 0.95


@pytest.mark.parametrize(
    ("name", "objective", "at_most"),
    [("kaplan", "squared", 0.0237103546), ("skaling", "squared", 4.2392217e-4), ("farseer", "squared", 2.200902e-4)],
)
def test_runs_in_bits_per_character(name, objective, at_most):
    runs = given("data/scalebench_farseer_train.csv")
    table = {"params": runs["N"].astype(float), "tokens": runs["D"].astype(float), "loss": runs["loss"]}
    fit = jl.fit(jl.laws[name], table, objective=objective)
    check_reported(fit, table)
    assert fit.converged["all_data"]
    assert fit.value["all_data"] <= at_most


@pytest.mark.parametrize("objective", ["squared", "huber_log"])
def test_sparsity_converges_without_warnings(objective):
    law = jl.laws["sparsity"]
    table = sampling.columns(law, 100, seed=0)
    loss = np.asarray(law("table3", sampling.inputs(law, 100, seed=0)))
    table["loss"] = loss * np.exp(0.002 * np.random.default_rng(0).normal(size=100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = jl.fit(law, table, objective=objective)
    check_reported(fit, table)
    assert fit.converged["all_data"]
    truth = of_errors(errors(law, law.groups["table3"], table, objective), objective)
    assert fit.value["all_data"] < truth


def test_two_publications_of_one_curve_fit_alike():
    size = np.geomspace(200, 4e5, 14)
    for seed, (worth, beta) in enumerate([(5.0, 0.3), (120.0, 0.6), (900.0, 0.8)]):
        loss = 1.2 + 300 / (worth + size**beta) * np.exp(0.005 * np.random.default_rng(seed).normal(size=14))
        table = {"sft_data_size": size, "sft_loss": loss}
        fits = [jl.fit(jl.laws[name], table, objective="squared") for name in ("rectified_sft", "sft_saturated")]
        assert all(fit.converged["all_data"] for fit in fits)
        rectified, saturated = (fit.value["all_data"] for fit in fits)
        assert rectified <= saturated * (1 + 1e-9)


def test_shares_count_starts_that_converged():
    fit = jl.fit(jl.laws["kaplan"], given("cases/outlier20.csv"), objective="squared")  # which no power can follow
    assert (fit.share["all_data"] > 0) == fit.converged["all_data"]
    fit = jl.fit(CHINCHILLA, grids(0.01, 1), objective="huber_log")
    assert fit.converged["0"]
    assert fit.share["0"] > 0.9


def made(name, rows, noise, seeds):
    """Runs of a law with errors, a group for each seed."""
    law, tables = jl.laws[name], []
    coefs = next(iter(testing.groups_of(law).values()))
    for seed in seeds:
        random = np.random.default_rng([seed, rows])
        columns = testing.sample(law, rows, seed=seed)
        output = np.asarray(law(coefs, from_columns(law, list(columns.values())))).reshape(rows, -1)
        output = output * np.exp(noise * random.normal(size=output.shape))
        tables.append(columns | dict(zip(law.output_columns, output.T, strict=True)))
    table = {column: np.concatenate([one[column] for one in tables]) for column in tables[0]}
    return law, table | {"group": np.repeat(np.array([*seeds]).astype(str), rows)}


def test_made_up_groups_report_what_they_return():
    random = np.random.default_rng(0)
    size, sets = np.tile(np.geomspace(200, 4e5, 14), 200), 200
    limit, weight, exponent = (np.repeat(random.uniform(*ends, sets), 14) for ends in ((0, 3), (1, 10), (0.05, 0.6)))
    loss = (limit + weight * size**-exponent) * np.exp(0.01 * random.normal(size=size.shape))
    group = np.repeat(np.arange(sets).astype(str), 14)
    fit = jl.fit(jl.laws["sft"], {"sft_data_size": size, "sft_loss": loss, "group": group}, objective="huber_log")
    assert all(fit.converged.values())
    for name, c in fit.coefs.items():
        mine = group == name
        value = of_errors(np.log((c.L_inf + c.A * size[mine] ** -c.alpha) / loss[mine]), "huber_log").sum()
        assert fit.value[name] == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize(
    ("name", "objective", "rows", "noise", "seeds"),
    [
        ("data_mixing", "squared", 16, 0.01, range(4)),  # at whose minima steps gain as little as rounding changes
        ("broken_power", "huber_log", 100, 0.03, [2]),  # along a valley that is straight
        ("mixture_power", "relative", 100, 0.03, range(2)),
        ("data_constrained", "squared", 100, 0.03, [1]),  # of exponents towards 0, weights towards infinity
    ],
)
def test_difficult_fits_converge(name, objective, rows, noise, seeds):
    law, table = made(name, rows, noise, seeds)
    fit = jl.fit(law, table, objective=objective, shared=())
    assert all(fit.converged.values())
    for group in fit.coefs:
        near = {v.name: np.asarray(getattr(fit.coefs[group], v.name))[None] for v in jl.variables(law.coefs)}
        runs = {column: values[table["group"] == group] for column, values in table.items() if column != "group"}
        again = jl.fit(law, runs, objective=objective, shared=(), starts=near)
        assert again.value["all_data"] >= fit.value[group] * (1 - 1e-9)


@pytest.mark.parametrize("name", jl.laws)
def test_nonlinear_coefficients_have_bounds_without_which_a_fit_may_have_no_minimum(name):
    linear = linear_fields(jl.laws[name])
    for v in jl.variables(jl.laws[name].coefs):
        wide = v.start[0] > 0 and v.start[1] >= 50 * v.start[0]
        if v.name not in linear and (wide or v.description.startswith("exponent")):
            assert np.isfinite(v.bounds).all(), v.name


def test_a_power_that_nothing_follows_ends_within_numbers():
    fit = jl.fit(jl.laws["kaplan"], given("cases/outlier20.csv"), objective="squared")
    assert fit.converged["all_data"]
    assert fit.share["all_data"] > 0.1
    assert fit.value["all_data"] == pytest.approx(20.035974248, rel=1e-9)  # as from `least_squares` of SciPy
