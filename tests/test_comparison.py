"""Comparisons: the law that made the runs must win, and AICc is that of the textbook."""

from __future__ import annotations

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import curve_fit, minimize_scalar
from scipy.stats import norm

import jaxlaws as jl
from jaxlaws.tables import DataError

SFT = jl.laws["sft"]


@jl.record
class Line:
    """Coefficients of a line in the logarithm."""

    a: jl.Scalar = jl.var("at one example")
    b: jl.Scalar = jl.var("per factor of e")


@jl.record
class Bent:
    """Coefficients of a power law that bends."""

    L_inf: jl.Scalar = jl.var("irreducible loss")
    A: jl.Scalar = jl.var("loss above it")
    bend: jl.Scalar = jl.var("what is added per logarithm")
    alpha: jl.Scalar = jl.var("exponent", bounds=(0, np.inf))


@jl.record
class Sizes:
    """An input."""

    size: jl.Scalar = jl.var("size")


@jl.record
class Two:
    """Two outputs."""

    loss: jl.Vector = jl.var("losses", shape="domain", columns="loss_{}")


@jl.record
class Lines:
    """A line per output."""

    a: jl.Vector = jl.var("at 0", shape="domain")
    b: jl.Vector = jl.var("slope", shape="domain")


def law_of(title, coefs, fn, base=SFT, **fields):
    zeros = coefs(**{v.name: np.zeros(2 if v.shape else ()) for v in jl.variables(coefs)})
    return dataclasses.replace(base, title=title, fn=fn, coefs=coefs, groups={"g": zeros}, **fields)


def line(c, x):
    return c.a + c.b * jnp.log(x.sft_data_size)


def bent(c, x):
    return c.L_inf + c.A * x.sft_data_size**-c.alpha + c.bend * jnp.log(x.sft_data_size)


def lines(c, x):
    return c.a + c.b * x.size


LINE, BENT = law_of("a line", Line, line), law_of("a bent power law", Bent, bent)
LINES = law_of("two lines", Lines, lines, inputs=Sizes, outputs=Two)
SIZE = 200.0 * 2 ** np.arange(12)


def runs_of(*curves):
    """Runs of groups a, b, ... whose losses are functions of the size, with noise."""
    random = np.random.default_rng(2)
    noise = 1 + 0.003 * random.normal(size=(len(curves), 12))
    return {
        "sft_data_size": np.tile(SIZE, len(curves)),
        "sft_loss": np.concatenate([curve(SIZE) * e for curve, e in zip(curves, noise, strict=True)]),
        "group": np.repeat(list("abcd")[: len(curves)], 12),
    }


POWER = runs_of(lambda n: 1.5 + 4 * n**-0.25, lambda n: 0.8 + 9 * n**-0.4)
LOGARITHM = runs_of(lambda n: 5 - 0.2 * np.log(n), lambda n: 4 - 0.15 * np.log(n))


def textbook(log_likelihood, n, k):
    return -2 * log_likelihood + 2 * k + 2 * k * (k + 1) / (n - k - 1)


@pytest.mark.parametrize("options", [{"by": "sft_data_size"}, {"holdout": "sft_data_size>5e4"}, {}])
@pytest.mark.parametrize(("table", "winner"), [(POWER, SFT), (LOGARITHM, LINE)])
def test_the_law_that_made_the_runs_wins(table, winner, options):
    laws = [BENT, *{LINE, SFT} - {winner}, winner]  # it comes first wherever it stood
    found = jl.compare(laws, table, **options)
    assert found.laws[0].law.fn is winner.fn
    rows = found.table()
    key = [row["r2_held_out"] for row in rows] if options else [-row["aicc"] for row in rows]
    assert key == sorted(key, reverse=True)
    assert {row["law"]: row["coefficients"] for row in rows} == {"sft": 6, "a line": 4, "a bent power law": 8}
    best = max(rows, key=lambda row: row["r2"])
    assert best["law"] == "a bent power law"  # which has both of the others in it
    sizes, losses = table["sft_data_size"], table["sft_loss"]
    for row, law in zip(rows, found.laws, strict=True):
        assert row["r2"] == pytest.approx(jl.evaluate(law.fit.law, law.fit.coefs, table).r2, rel=1e-14)
        if row["law"] != "a line":
            continue
        rss = 0
        residuals = []
        for own in (table["group"] == "a", table["group"] == "b"):
            x, y = np.log(sizes[own]), losses[own]
            rss += np.sum((y - np.polyval(np.polyfit(x, y, 1), x)) ** 2)
            # As many smaller scales for the line as the law of four coefficients needs.
            splits = [5, 6, 7, 8, 9, 10, 11] if "by" in options else [8] if options else []
            for i in splits:
                to = i + 1 if "by" in options else 12
                residuals += (y[i:to] - np.polyval(np.polyfit(x[:i], y[:i], 1), x[i:to])).tolist()
        expected = textbook(norm.logpdf(0, scale=np.sqrt(rss / 24)) * 24 - 12, 24, 5)
        np.testing.assert_allclose(row["aicc"], expected, rtol=1e-9)
        np.testing.assert_allclose(24 * np.log(rss / 24) + 10 + 60 / 18, expected - 24 * (1 + np.log(2 * np.pi)))
        if options:
            np.testing.assert_allclose(sorted(law.held_out.residuals), sorted(residuals), atol=1e-9)
            np.testing.assert_allclose(row["error_held_out"], np.abs(residuals).mean())
            assert found.held_out == len(residuals)
        else:
            assert np.isnan(row["r2_held_out"])
            assert found.held_out == 0


def test_all_laws_predict_the_same_runs():
    found = jl.compare([LINE, BENT], POWER, by="sft_data_size")
    for law in found.laws:
        np.testing.assert_array_equal(law.held_out.rows, found.laws[0].held_out.rows)
        assert [level.value for level in law.held_out.levels] == SIZE[5:].tolist()
    assert set(found.skipped) == set(SIZE[:5])
    assert found.skipped[3200.0] == "4 runs at 4 smaller levels"


def test_a_comparison_prints_as_a_table():
    found = jl.compare([LINE, SFT], POWER, holdout="sft_data_size>5e4")
    first, header, rule, *rows = str(found).splitlines()
    assert first == "24 runs, objective 'squared'; 8 held out: sft_data_size>5e4"
    assert header.split("  ")[0] == "law"
    assert set(rule) == {"─"}
    cells = [row.split() for row in rows]
    assert [row[0] for row in cells] == ["sft", "test_comparison"]  # a law is called as its file
    for row, law in zip(cells, found.table(), strict=True):
        assert float(row[1]) == pytest.approx(law["r2_held_out"], abs=1e-6)
        assert int(row[4]) == law["coefficients"]
        assert float(row[5]) == pytest.approx(law["aicc"], abs=0.05)
    assert "held" not in str(jl.compare([LINE, SFT], POWER))


def test_flags_of_a_comparison():
    rising = POWER | {"sft_loss": 1 + 0.1 * np.log(POWER["sft_data_size"])}  # so that the weight is on its bound
    found = jl.compare(["sft"], rising, by="sft_data_size")
    (law,) = found.laws
    assert any("on a bound: A" in flag and flag.endswith("(in 2 of 2 groups)") for flag in law.flags)
    assert [f"sft: {flag}" for flag in law.flags] == str(found).splitlines()[-len(law.flags) :]
    assert "not predicted: 200 (no runs at smaller levels), 400 (1 run at 1 smaller level), 800 (2 " in str(found)


@pytest.mark.parametrize(
    ("laws", "options", "message"),
    [
        ([SFT, "parallel"], {}, "parallel: no column 'num_params' (nor 'n_params', 'params', 'n'); the table has"),
        ([SFT, LINES], {}, "no column 'size'"),
        ([SFT, "stf"], {}, "unknown law 'stf'; did you mean 'sft'?"),
        ([SFT, SFT], {}, "sft is given twice"),
        ([], {}, "at least one law"),
        ([SFT], {"by": "sft_data_size", "holdout": "sft_data_size>1e4"}, "holdout or by must be given, not both"),
        ([SFT], {"by": "size"}, "no column 'size'; the table has"),
        ([SFT], {"holdout": "size>3"}, "no column 'size'; the table has"),
        ([SFT], {"objective": "absolute"}, "objective must be one of"),
        ([SFT], {"smallest": 12, "by": "sft_data_size"}, "no level of 'sft_data_size' can be predicted"),
        (["chinchilla", "moe"], {}, "laws that predict different columns cannot be compared: "),
        ([SFT, 3], {}, "a law such as"),
    ],
)
def test_what_cannot_be_compared(laws, options, message):
    table = POWER
    if "moe" in laws:
        names = "params tokens loss dense_parameter_count num_experts loss_validation".split()
        table = {name: np.arange(1.0, 9) for name in names}
    with pytest.raises((DataError, ValueError, KeyError, TypeError)) as error:
        jl.compare(laws, table, **options)
    assert message in str(error.value)


# AICc.


def test_aicc_with_weights_and_shared_coefficients():
    weights = np.where(np.arange(24) % 5 == 0, 0.25, 1.0)
    weights[3] = 0
    fit = jl.fit(SFT, POWER, weights=weights, shared=["alpha"])
    size, loss, second = POWER["sft_data_size"], POWER["sft_loss"], POWER["group"] == "b"

    def both(x, a, b, c, d, exponent):
        own = second[used]
        return np.where(own, b, a) + np.where(own, d, c) * x**-exponent

    used = weights > 0
    sigma = weights[used] ** -0.5
    best, _ = curve_fit(both, size[used], loss[used], (1, 1, 5, 5, 0.3), sigma=sigma, xtol=1e-15, ftol=1e-15)
    error = loss[used] - both(size[used], *best)
    scale = np.sqrt(np.mean((error / sigma) ** 2))
    expected = textbook(norm.logpdf(error, scale=scale * sigma).sum(), 23, 5 + 1)
    np.testing.assert_allclose(jl.aicc(fit), expected, rtol=1e-8)


@pytest.mark.parametrize("spread", [1e-4, 1e-3, 1e-2, 1.0])
def test_aicc_of_huber_is_that_of_its_density(spread):
    """The density, its integral and the greatest likelihood are found by SciPy."""
    error = spread * np.random.default_rng(3).standard_t(3, 24)
    delta = 1e-3

    def rho(e):
        return np.where(np.abs(e) < delta, e**2 / 2, delta * (np.abs(e) - delta / 2))

    def minus_log_likelihood(log_scale):
        s = np.exp(log_scale)
        ends = np.unique([0, delta, *(np.sqrt(s) * 2.0 ** np.arange(5)), *(s / delta * 2.0 ** np.arange(6))])
        pieces = itertools.pairwise(ends)
        area = 2 * sum(quad(lambda e: np.exp(-rho(e) / s), low, high, epsabs=0)[0] for low, high in pieces)
        return 24 * np.log(area) + rho(error).sum() / s

    start = np.log(rho(error).mean())
    best = minimize_scalar(minus_log_likelihood, bounds=(start - 3, start + 3), method="bounded")
    fit = jl.fit(LINE, POWER, starts=1)
    values = {name: rho(error[own]).sum() for name, own in (("a", slice(12)), ("b", slice(12, 24)))}
    fit = dataclasses.replace(fit, objective="huber_log", value=values)
    np.testing.assert_allclose(jl.aicc(fit), textbook(-best.fun, 24, 5), rtol=1e-6)


def test_aicc_of_several_outputs():
    random = np.random.default_rng(4)
    x = np.linspace(0.1, 1, 9)
    y = np.stack([1 + x, 3 - 2 * x], -1) + 0.1 * random.normal(size=(9, 2))
    fit = jl.fit(LINES, {"size": x, "loss_1": y[:, 0], "loss_2": y[:, 1]})
    rss = sum(np.sum((column - np.polyval(np.polyfit(x, column, 1), x)) ** 2) for column in y.T)
    np.testing.assert_allclose(jl.aicc(fit), textbook(-9 * (np.log(2 * np.pi * rss / 18) + 1), 18, 5), rtol=1e-9)


def test_aicc_where_there_is_none():
    fit = jl.fit(LINE, POWER, starts=1)
    assert jl.aicc(dataclasses.replace(fit, value={"a": 0.0, "b": 0.0})) == -np.inf
    assert jl.aicc(dataclasses.replace(fit, value={"a": np.inf, "b": 0.0})) == np.inf
    few = jl.fit(
        LINE, POWER, starts=1, weights=((POWER["group"] == "a") & (SIZE[0] * 16 >= POWER["sft_data_size"])) * 1
    )
    assert jl.aicc(few) < np.inf  # five runs of one group, for which three numbers are fitted
    few = jl.fit(LINE, POWER, starts=1, weights=((POWER["group"] == "a") & (SIZE[0] * 8 >= POWER["sft_data_size"])) * 1)
    assert jl.aicc(few) == np.inf
