"""Standard errors that were published, as draws, in intervals and in searches."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import jaxlaws as jl

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")  # answers far from all runs are answers here

LAW = jl.laws["chinchilla"]
GROUP = "besiroglu2024"


def test_draws_have_the_covariance_of_the_group():
    draws = jl.published_draws(LAW, GROUP, 500).coefs[GROUP]
    values = np.stack([draws.E, np.log(draws.A), np.log(draws.B), draws.alpha, draws.beta])
    covariance = LAW.covariance_of(GROUP)
    np.testing.assert_allclose(np.cov(values), covariance, rtol=1e-9)
    np.testing.assert_array_equal(covariance, covariance.T)
    np.testing.assert_allclose(np.exp(values[2].mean()), LAW.groups[GROUP].B, rtol=1e-12)
    np.testing.assert_allclose(values[4].mean(), LAW.groups[GROUP].beta, rtol=1e-12)


def test_the_covariance_has_the_published_errors():
    """Those of A and B are of the coefficients, which have long tails: of the logarithm, B's is smaller."""
    published, errors = LAW.stderr_of(GROUP), np.sqrt(np.diag(LAW.covariance_of(GROUP)))
    for name, error in zip(("E", "alpha", "beta"), errors[[0, 3, 4]], strict=True):
        np.testing.assert_allclose(error, getattr(published, name), rtol=0.02)
    np.testing.assert_allclose(errors[1] * LAW.groups[GROUP].A, published.A, rtol=0.03)
    assert 0.5 * published.B < errors[2] * LAW.groups[GROUP].B < published.B


def test_intervals_are_those_of_drawing_the_runs_again(data):
    """Beyond the runs; among them, normal errors cancel less well."""
    import pandas as pd

    runs = pd.read_csv(data / "chinchilla_epoch_svg.csv").sort_values("loss").iloc[:-5]
    runs = runs.rename(columns={"model_size": "params", "training_tokens_derived": "tokens"})
    draws = jl.bootstrap(jl.fit(LAW, runs), 500)
    x = {"params": [1e9, 7e9, 7e10], "tokens": [2e10, 1.4e11, 1.4e12]}
    ours, published = jl.predict_interval(draws, "all_data", **x), jl.predict_interval(LAW, GROUP, **x)
    np.testing.assert_allclose(published.middle, ours.middle, atol=0.003)
    ratio = (published.high - published.low) / (ours.high - ours.low)
    assert 1 < ratio[0] < 2.2
    np.testing.assert_allclose(ratio[1:], 1, atol=0.07)
    drawn = draws.coefs["all_data"]
    found = np.cov([drawn.E, np.log(drawn.A), np.log(drawn.B), drawn.alpha, drawn.beta])
    covariance = LAW.covariance_of(GROUP)
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(found / scale, covariance / scale, atol=0.15)


def test_an_interval_needs_published_errors():
    with pytest.raises(
        ValueError, match=r"chinchilla: the errors of group 'hoffmann2022' are not known; those of 'besir"
    ):
        jl.predict_interval(LAW, "hoffmann2022", params=1e9, tokens=1e10)
    with pytest.raises(jl.UnknownNameError, match=r"unknown group of chinchilla 'hoffman2022'; did you mean"):
        jl.predict_interval(LAW, "hoffman2022", params=1e9, tokens=1e10)
    with pytest.raises(ValueError, match=r"moe: the errors of any group are not known$"):
        jl.published_draws(jl.laws["moe"])
    with pytest.raises(ValueError, match="more than 5 draws"):
        jl.published_draws(LAW, GROUP, 5)
    with pytest.raises(ValueError, match="these draws are of an unknown fit"):
        jl.predict_interval(LAW, GROUP, params=1e9, tokens=1e10, run=True)


def test_errors_without_a_covariance_are_shown_and_not_drawn():
    alone = dataclasses.replace(LAW.source_of(GROUP), covariance=(), logs=())
    law = dataclasses.replace(LAW, sources={GROUP: alone})
    assert law.stderr_of(GROUP).B == 1293.0
    assert law.covariance_of(GROUP) is None
    with pytest.raises(
        ValueError, match="chinchilla: the errors of any group are known one by one, and not how they vary"
    ):
        jl.published_draws(law)


def test_the_decision_is_as_sure_as_the_published_errors_say(run, tmp_path):
    args = ("allocate", "chinchilla", "--group", GROUP, "--budget", "1e24", "--json")
    status, out, _ = run(*args, "--draws", "published")
    assert status == 0
    found = json.loads(out)
    assert found["draws_answered"] == 1
    assert found["params_low"] < 7e10 < found["params"] < 1.3e11 < found["params_high"]
    jl.published_draws(LAW, GROUP).save(tmp_path / "draws.parquet")
    assert run(*args, "--draws", tmp_path / "draws.parquet")[1] == out
    status, _, err = run(*args[:2], *args[4:], "--draws", "published")
    assert (status, err) == (2, "jaxlaws: only besiroglu2024 has published errors: add --group besiroglu2024\n")
    assert "the errors of any group are not known" in run("allocate", "kaplan", *args[4:], "--draws", "published")[2]


def test_show_prints_the_errors(run):
    out = run("show", "chinchilla")[1]
    assert "±" in out
    assert "Besiroglu et al. 2024" in out
    shown = json.loads(run("show", "chinchilla", "--json")[1])["sources"][GROUP]
    assert shown["stderr"]["beta"] == 0.0206
    assert [len(row) for row in shown["covariance"]] == [1, 2, 3, 4, 5]
