"""The coefficients for easy questions: how they were fitted, and what that is worth on larger runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import lsq_linear, minimize

import jaxlaws as jl

LAW = jl.laws["easy_question"]
UNSEEN = 1.5  # where the score turns, if that and the runs before it were not seen


@pytest.fixture(scope="module")
def table(runs):
    return pd.read_csv(runs("easy_question"))


def fitted(table, held_out):
    """The coefficients without some runs, and as they come out where turns that were not seen stay free."""
    options = {"weights": np.where(held_out, 0.0, 1.0)}
    free = jl.fit(LAW, table, **options)
    coefs = dict(free.coefs)
    for group, last in table[~held_out].groupby("group")["log_flops"].max().items():
        if coefs[group].turn >= last:
            fixed = {"rate": coefs[group].rate, "fade": coefs[group].fade, "turn": max(last, UNSEEN)}
            coefs[group] = jl.fit(LAW, table, fixed=fixed, **options).coefs[group]
    return coefs, free.coefs


def test_the_shipped_coefficients_are_what_a_fit_finds(table):
    coefs, free = fitted(table, np.zeros(len(table), bool))
    for group, shipped in LAW.groups.items():
        assert jl.as_dict(coefs[group]) == pytest.approx(jl.as_dict(shipped), rel=1e-5)
    shipped = jl.evaluate(LAW, None, table).r2
    assert jl.evaluate(LAW, coefs, table).r2 == pytest.approx(shipped, abs=1e-9)
    assert shipped == pytest.approx(0.918346, abs=1e-6)
    assert jl.evaluate(LAW, free, table).r2 == pytest.approx(0.920948, abs=1e-6)


def test_no_other_coefficients_fit_better(table):
    """With the same turns, a search by SciPy for the shared coefficients finds the same left over."""
    fit = jl.fit(LAW, table)
    x, y = table["log_flops"].to_numpy(), table["brier_score"].to_numpy()

    def left(shared):
        rate, fade = shared
        total = 0.0
        for group, coefs in fit.coefs.items():
            rows = (table["group"] == group).to_numpy()
            bent = np.exp(-rate / 4 * np.logaddexp(0, 4 * (x[rows] - coefs.turn)))
            basis = -np.stack([bent, 1 / (1 + np.exp(fade * (x[rows] + 0.9)))], axis=1)
            total += 2 * lsq_linear(basis, y[rows], ([0, -1], [1, 1])).cost
        return total

    found = minimize(left, [0.4, 4], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12})
    assert found.fun == pytest.approx(float(np.sum(fit.residuals**2)), rel=1e-6)
    assert found.x == pytest.approx([0.582244, 5.319072], rel=1e-3)


@pytest.mark.parametrize(
    ("share", "shipped", "free"), [(0.1, 0.8881, 0.9172), (0.2, 0.8701, 0.9187), (0.3, 0.8339, 0.8997)]
)
def test_predicts_the_largest_runs_of_each_group(table, share, shipped, free):
    """R2 over all groups, where turns that were not seen are put at the last run, and where they stay free."""
    rank = table.groupby("group")["log_flops"].rank(method="first", pct=True)
    held_out = (rank > 1 - share).to_numpy()
    scores = [jl.evaluate(LAW, coefs, table[held_out]).r2 for coefs in fitted(table, held_out)]
    assert scores == pytest.approx([shipped, free], abs=1e-3)


def test_scores_rise_to_perfect_and_never_beyond():
    x = np.linspace(1.5, 12, 100)
    for group in LAW.groups:
        score = LAW(group, log_flops=x)
        assert (np.diff(score) > 0).all()
        assert (score < 0).all()
        assert abs(LAW(group, log_flops=20.0)) < 1e-3
        assert (np.asarray(LAW(group, log_flops=np.linspace(-20, 1.5, 50))) < 0).all()
