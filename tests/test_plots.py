"""Figures: what is drawn is what the fit says, in the units of the law."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import jax
import matplotlib
import matplotlib.colors
import numpy as np
import pytest

import jaxlaws as jl
from jaxlaws.fitting.bootstrap import Draws

SIZES = np.array([5e8, 7e8, 1e9, 1.6e9, 2.8e9, 4.4e9])
ABSENT = "figures need matplotlib: pip install 'jaxlaws[plot]'"


def noise(count, seed=0):
    return 1 + 0.003 * np.random.default_rng(seed).normal(size=count)


@pytest.fixture(scope="module")
def table():
    """Runs of parallel: 6 sizes, 3 numbers of streams, 2 groups."""
    n, p = (np.tile(each.ravel(), 2) for each in np.meshgrid(SIZES, [1.0, 2.0, 4.0]))
    group = np.repeat(["pile", "_a$b$"], 18)
    loss = (1.3 + 30 * n**-0.2 - 0.05 * np.log(p)) * noise(36)
    return {"num_params": n, "parallel_size": p, "loss": loss, "group": group}


@pytest.fixture(scope="module")
def fitted(table):
    return jl.fit(jl.laws["parallel"], table)


@pytest.fixture(scope="module")
def mixtures():
    """A fit of domain_mixture for two groups."""
    law = jl.laws["domain_mixture"]
    p = np.random.default_rng(1).dirichlet(np.ones(5), 40)
    group = np.repeat(["70M", "410M"], 20)
    loss = np.asarray(law(group, proportions=p)) * noise((40, 5))
    columns = {f"proportion_domain_{i + 1}": p[:, i] for i in range(5)}
    return jl.fit(law, {**columns, **{f"loss_domain_{i + 1}": loss[:, i] for i in range(5)}, "group": group})


def sft(loss, size, **options):
    return jl.fit(jl.laws["sft"], {"sft_data_size": size, "sft_loss": loss}, **options)


def dots(axes):
    """Where the dots are, whole and hollow ones, [dot, 2]."""
    return np.concatenate([found.get_offsets() for found in axes.collections if len(found.get_offsets()) > 1])


def scattered(axes):
    return [c for c in axes.collections if type(c).__name__ == "PathCollection"]


def lines(axes, styles=("-", "--")):
    return [line for line in axes.lines if line.get_linestyle() in styles]


def bands(axes):
    return [c for c in axes.collections if type(c).__name__ in ("PolyCollection", "FillBetweenPolyCollection")]


def ends(band, x):
    """Lower and upper end of a band at these points, of which it has vertices."""
    vertices = band.get_paths()[0].vertices
    at = [vertices[vertices[:, 0] == each, 1] for each in x]
    return np.array([each.min() for each in at]), np.array([each.max() for each in at])


def legend(figure):
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()], found.get_title().get_text()


def sorted_rows(values):
    return np.asarray(sorted(map(tuple, np.asarray(values))))


def test_curves_are_predictions_with_their_intervals(fitted, table):
    figure = jl.plot_fit(fitted, "pile", level=0.8)
    panel, strip = figure.axes
    solid, dashed = lines(panel, ["-"]), lines(panel, ["--"])
    assert len(solid) == len(dashed) == len(bands(panel)) == 3
    for size, inside, beyond, band in zip([1, 2, 4], solid, dashed, bands(panel), strict=True):
        assert inside.get_color() is not solid[size % 3].get_color()
        assert (inside.get_xdata()[0], inside.get_xdata()[-1]) == (SIZES[0], SIZES[-1])
        assert beyond.get_xdata()[0] == SIZES[-1]
        assert beyond.get_xdata()[-1] == panel.get_xlim()[1] > 2 * SIZES[-1]
        for line in (inside, beyond):
            x = line.get_xdata()
            expected = fitted.law(fitted.coefs["pile"], num_params=x, parallel_size=size)
            np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-9)
            found = jl.predict_interval(fitted, "pile", level=0.8, num_params=x, parallel_size=size)
            for end, of_band in zip((found.low, found.high), ends(band, x), strict=True):
                np.testing.assert_allclose(of_band, end, rtol=1e-9)
    mine = table["group"] == "pile"
    measured = np.stack([table["num_params"], table["loss"]], -1)[mine]
    np.testing.assert_array_equal(sorted_rows(dots(panel)), sorted_rows(measured))
    predicted = fitted.law(
        fitted.coefs["pile"], num_params=table["num_params"][mine], parallel_size=table["parallel_size"][mine]
    )
    percent = 100 * (table["loss"][mine] / np.asarray(predicted) - 1)
    expected = np.stack([table["num_params"][mine], percent], -1)
    np.testing.assert_allclose(sorted_rows(dots(strip)), sorted_rows(expected), rtol=1e-7)
    assert panel.get_xscale() == "log"
    assert panel.get_yscale() == "linear"


def test_labels_have_units_and_the_legend_levels(fitted):
    figure = jl.plot_fit(fitted, "pile")
    panel, strip = figure.axes
    assert panel.get_ylabel() == "loss (nat/token)"
    assert strip.get_ylabel() == "residual (%)"
    assert strip.get_xlabel() == "num_params (parameters)"
    assert legend(figure) == (["1", "2", "4", "extrapolated", "90% interval\nof the law"], "parallel_size")
    assert figure.get_suptitle() == "parallel: loss with parallel streams, group pile"
    assert panel.get_title("left").startswith("18 runs, 90% of them within 0.")
    figure.canvas.draw()
    shown = [label.get_text() for label in strip.get_xticklabels()]
    assert {"1B", "10B"} <= set(shown)


def test_dots_have_the_colours_of_their_curves(fitted, table):
    panel = jl.plot_fit(fitted, "pile").axes[0]
    colours = {size: line.get_color() for size, line in zip([1.0, 2.0, 4.0], lines(panel, ["-"]), strict=True)}
    (found,) = scattered(panel)
    mine = table["group"] == "pile"
    expected = [matplotlib.colors.to_rgba(colours[size]) for size in table["parallel_size"][mine]]
    np.testing.assert_allclose(found.get_facecolors(), expected)
    grey = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b, _ in map(matplotlib.colors.to_rgba, colours.values())]
    assert np.all(np.diff(grey) > 0.15)  # told apart without colours


def test_groups_side_by_side(fitted):
    figure = jl.plot_fit(fitted)
    assert len(figure.axes) == 4
    titles = [axes.get_title("left").splitlines()[0] for axes in figure.axes[::2]]
    assert titles == ["pile", r"_a\$b\$"]  # which shows as it is
    assert figure.get_supxlabel() == "num_params (parameters)"
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss (nat/token)", "residual\n(%)", "", ""]
    swapped = jl.plot_fit(fitted, ["_a$b$", "pile"])
    np.testing.assert_array_equal(dots(swapped.axes[0]), dots(figure.axes[2]))
    figure.canvas.draw()  # warnings are errors


def test_another_input_on_the_horizontal_axis(fitted):
    figure = jl.plot_fit(fitted, "pile", "parallel_size")
    panel, strip = figure.axes
    assert strip.get_xlabel() == "parallel_size"
    assert panel.get_xscale() == "linear"
    assert len(lines(panel, ["-"])) == len(SIZES)
    assert legend(figure)[1] == "num_params (parameters)"
    assert legend(figure)[0][:3] == ["500M", "700M", "1B"]


def test_eight_curves_for_many_values():
    random = np.random.default_rng(3)
    n, d = 10 ** random.uniform(8, 10, 60), 10 ** random.uniform(9, 11, 60)
    law = jl.laws["chinchilla"]
    given = {"N": n, "D": d, "loss": (1.8 + 480 * n**-0.35 + 2000 * d**-0.37) * noise(60)}
    fit = jl.fit(law, given, fixed={"alpha": 0.35, "beta": 0.37})
    figure = jl.plot_fit(fit, x="D")
    panel, strip = figure.axes
    assert strip.get_xlabel() == "tokens"
    solid = lines(panel, ["-"])
    assert len(solid) == 8
    levels = []
    for line in solid:  # each is at a value of a run
        middle = np.asarray(law(fit.coefs["all_data"], params=n[:, None], tokens=line.get_xdata()[[0, -1]]))
        off = np.abs(middle / line.get_ydata()[[0, -1]] - 1).max(axis=1)
        assert off.min() < 1e-9
        levels.append(n[off.argmin()])
    assert levels == sorted(levels)
    between = np.histogram(n, [0, *levels, np.inf])[0][1:-1]
    assert between.min() >= 6  # about as many runs between each two
    assert between.max() <= 10


def test_other_inputs_are_held_and_runs_elsewhere_pale():
    law = jl.laws["data_constrained"]
    n, d, u = (each.ravel() for each in np.meshgrid([1e8, 1e9, 2e9], [1e9, 1e10, 1e11], [1e9, 1e9, 5e9]))
    loss = np.asarray(law("all_data", params=n, tokens=d, unique_tokens=u)) * noise(27)
    exponents = {name: getattr(law.groups["all_data"], name) for name in ("alpha", "beta", "gamma", "delta")}
    fit = jl.fit(law, {"params": n, "tokens": d, "unique_tokens": u, "loss": loss}, fixed=exponents)
    figure = jl.plot_fit(fit)
    panel, strip = figure.axes
    assert strip.get_xlabel() == "params (parameters), unique_tokens = 1B"
    line = lines(panel, ["-"])[2]
    expected = law(fit.coefs["all_data"], params=line.get_xdata(), tokens=1e11, unique_tokens=1e9)
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-9)
    (found,) = scattered(panel)
    pale = found.get_facecolors()[:, 3] < 0.5
    np.testing.assert_array_equal(pale, u == 5e9)
    assert "run at another\nunique_tokens" in legend(figure)[0]


def test_measured_against_predicted(mixtures):
    figure = jl.plot_fit(mixtures)
    assert len(figure.axes) == 10
    assert figure.get_supxlabel() == "predicted (nat/token)"
    assert figure.axes[0].get_ylabel() == "measured (nat/token)"
    runs = mixtures.runs
    predicted, intervals = [], []
    for g, name in enumerate(["70M", "410M"]):
        p = np.asarray(runs.inputs.proportions)[runs.group == g]
        predicted += [*np.asarray(mixtures.law(mixtures.coefs[name], proportions=p))]
        found = jl.predict_interval(mixtures, name, proportions=p)
        intervals += [*np.stack([np.asarray(found.low), np.asarray(found.high)], -1)]
    predicted, intervals = np.array(predicted), np.array(intervals)  # [run, output], [run, output, end]
    for i, (panel, strip) in enumerate(zip(figure.axes[::2], figure.axes[1::2], strict=True)):
        assert panel.get_title("left").startswith(f"loss_domain_{i + 1}\n40 runs")
        measured = runs.measured[:, i]
        np.testing.assert_allclose(dots(panel), np.stack([predicted[:, i], measured], -1), rtol=1e-9)
        np.testing.assert_allclose(dots(strip)[:, 1], 100 * (measured / predicted[:, i] - 1), rtol=1e-6)
        drawn = np.concatenate(
            [c.get_segments() for c in panel.collections if type(c).__name__ == "LineCollection"]
        )  # [run, end, axis]
        np.testing.assert_allclose(drawn[:, :, 0], intervals[:, i], rtol=1e-9)
        np.testing.assert_array_equal(drawn[:, :, 1], np.stack([measured] * 2, -1))
        (diagonal,) = panel.lines
        np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert legend(figure)[0][:2] == ["70M", "410M"]


def test_runs_that_did_not_count_are_hollow_and_beyond():
    size = np.geomspace(200, 4e5, 12)
    loss = (1 + 5 * size**-0.3) * noise(12)
    figure = jl.plot_fit(sft(loss, size, weights=(size < 1e4) * 1.0))
    panel = figure.axes[0]
    whole, hollow = scattered(panel)
    assert len(whole.get_offsets()) == (size < 1e4).sum()
    assert len(hollow.get_facecolors()) == 0
    np.testing.assert_array_equal(hollow.get_offsets()[:, 0], size[size >= 1e4])
    (beyond,) = lines(panel, ["--"])
    assert beyond.get_xdata()[0] == size[size < 1e4].max()
    assert panel.get_xlim()[1] >= size.max()
    assert "run of weight 0" in legend(figure)[0]


def test_residuals_far_off_are_triangles():
    size = np.geomspace(200, 4e5, 12)
    loss = (1 + 5 * size**-0.3) * noise(12)
    loss[10] *= 3
    panel, strip = jl.plot_fit(sft(loss, size, weights=np.where(size == size[10], 1e-12, 1))).axes
    usual, far = scattered(strip)
    assert len(usual.get_offsets()) == 11
    assert far.get_offsets()[0, 0] == size[10]
    assert np.abs(dots(strip)[:, 1]).max() < strip.get_ylim()[1] < 10
    assert far.get_offsets()[0, 1] < strip.get_ylim()[1]
    assert loss[10] < panel.get_ylim()[1]


def test_few_runs_have_no_interval():
    size = np.array([200.0, 400.0])
    figure = jl.plot_fit(sft(1 + 5 * size**-0.3, size))
    panel = figure.axes[0]
    assert "leave nothing to tell errors from" in panel.get_title("left").replace("\n", " ")
    assert not any("interval" in text for text in legend(figure)[0])
    figure.canvas.draw()


def test_losses_of_both_signs_have_residuals_in_their_unit():
    size = np.geomspace(200, 4e5, 12)
    fit = sft((1 + 5 * size**-0.3) * noise(12), size)
    runs = dataclasses.replace(fit.runs, measured=fit.runs.measured - 1.5)
    panel, strip = jl.plot_fit(dataclasses.replace(fit, runs=runs)).axes
    assert strip.get_ylabel() == "residual (nat/token)"
    np.testing.assert_allclose(dots(strip)[:, 1], fit.residuals, rtol=1e-9)
    assert panel.get_title("left").endswith("nat/token")


def test_draws_have_their_quantiles(fitted):
    random = np.random.default_rng(0)
    coefs = {n: jax.tree.map(lambda c: c * (1 + 0.01 * random.normal(size=20)), c) for n, c in fitted.coefs.items()}
    draws = Draws(law=fitted.law, coefs=coefs, best=fitted.coefs, converged=dict.fromkeys(coefs, 1.0), fit=fitted)
    panel = jl.plot_fit(draws, "pile", level=0.5).axes[0]
    x = lines(panel, ["-"])[0].get_xdata()
    found = jl.predict_interval(draws, "pile", level=0.5, num_params=x, parallel_size=1)
    np.testing.assert_allclose(lines(panel, ["-"])[0].get_ydata(), found.middle, rtol=1e-9)
    np.testing.assert_allclose(ends(bands(panel)[0], x), [found.low, found.high], rtol=1e-9)
    with pytest.raises(ValueError, match="draws are of an unknown fit"):
        jl.plot_fit(dataclasses.replace(draws, fit=None))


def test_twelve_groups_at_most(fitted):
    coefs = {f"group {i}": fitted.coefs["pile"] for i in range(13)}
    many = dataclasses.replace(fitted, coefs=coefs)
    with pytest.raises(ValueError, match="a figure of parallel holds 1 to 12 groups, not 13"):
        jl.plot_fit(many)
    with pytest.raises(ValueError, match="not 0"):
        jl.plot_fit(fitted, [])


def test_errors(fitted, mixtures):
    with pytest.raises(KeyError, match="unknown group of the fit 'pil'; did you mean 'pile'"):
        jl.plot_fit(fitted, "pil")
    with pytest.raises(ValueError, match="parallel has no input 'loss'; it has num_params, parallel_size"):
        jl.plot_fit(fitted, x="loss")
    with pytest.raises(ValueError, match="domain_mixture is drawn as measured against predicted"):
        jl.plot_fit(mixtures, x="proportions")
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        jl.plot_fit(fitted, level=90)


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib(fitted):
    with pytest.raises(ImportError) as error:
        jl.plot_fit(fitted)
    assert str(error.value) == ABSENT


def test_matplotlib_is_loaded_when_needed_and_pyplot_never(fitted):
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    jl.plot_fit(fitted).canvas.draw()
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
    script = "import sys, jaxlaws.cli; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


# Optima with their spread.


def answer(kind, shape, **known):
    """An answer of a search that has these fields; the others are not looked at."""
    found = dict.fromkeys(field.name for field in dataclasses.fields(kind))
    yes = np.ones(shape, bool)
    return kind(**{**found, "converged": yes, "feasible": yes, **known})


@pytest.fixture(scope="module")
def mixture():
    """Best mixtures of 30 draws."""
    random = np.random.default_rng(0)
    p = np.minimum(random.dirichlet([1, 2, 9, 2, 1], 30), 0.4)
    loss = random.normal(2.4, 0.1, 30)
    return answer(jl.Mixture, 30, proportions=p, loss=loss, at_lower=p < 0.01, at_upper=p == 0.4)


@pytest.fixture(scope="module")
def plans():
    """Best allocations of 30 draws to 5 budgets: cost = 6 params tokens, and a loss of each."""
    random = np.random.default_rng(0)
    cost = np.geomspace(1e20, 1e24, 5)[:, None] * np.ones(30)
    params = cost**0.5 / 10 * random.lognormal(0, 0.1, (5, 30))
    inputs = jl.laws["chinchilla"].inputs(params=params, tokens=cost / (6 * params))
    return answer(jl.Allocation, (5, 30), inputs=inputs, loss=1.8 + params**-0.1, cost=cost)


def test_mixtures_with_their_spread(mixture):
    lost = np.arange(30) < 3
    result = dataclasses.replace(mixture, converged=~lost)
    figure = jl.plot_mixture(result, names=["web", "_code$", "c", "d", "e"], level=0.8)
    (panel,) = figure.axes
    low, middle, high = np.quantile(np.asarray(mixture.proportions)[3:], [0.1, 0.5, 0.9], axis=0)
    (median,) = panel.lines
    np.testing.assert_allclose(median.get_xdata(), middle, rtol=1e-12)
    (found,) = panel.collections
    np.testing.assert_allclose(np.asarray(found.get_segments())[:, :, 0], np.stack([low, high], -1), rtol=1e-12)
    assert [label.get_text() for label in panel.get_yticklabels()][:2] == ["web", r"_code\$"]
    assert "30 draws; 3 of 30 searches without an answer" in panel.get_title("left")
    figure.canvas.draw()


def test_the_best_mixture_among_draws(mixture):
    best = answer(jl.Mixture, (), proportions=np.array([0.1, 0.2, 0.3, 0.3, 0.1]), loss=np.float64(2.5))
    panel = jl.plot_mixture(mixture, best).axes[0]
    np.testing.assert_array_equal(panel.lines[0].get_xdata(), best.proportions)
    assert panel.get_title("left").startswith("best (dot) and 90% (line) of 30 draws\nloss 2.5 (")
    with pytest.raises(ValueError, match=r"best must be one answer for 5 domains; .* \(30, 5\)"):
        jl.plot_mixture(mixture, mixture)


def test_the_share_of_draws_at_a_bound(mixture):
    panel = jl.plot_mixture(mixture).axes[0]
    at_lower, at_upper = np.mean(mixture.proportions < 0.01, 0), np.mean(mixture.proportions == 0.4, 0)
    assert at_upper[2] > 0.5
    for text, lower, upper in zip(panel.texts, at_lower, at_upper, strict=True):
        said = [f"{100 * lower:.1f}% at the lower bound"] * bool(lower)
        said += [f"{100 * upper:.1f}% at the upper bound"] * bool(upper)
        assert text.get_text() == ", ".join(said).replace(".0%", "%")


def test_bad_mixtures(mixture):
    one = dataclasses.replace(mixture, proportions=mixture.proportions[0])
    with pytest.raises(ValueError, match=r"axes of draws and of domains, not shape \(5,\)"):
        jl.plot_mixture(one)
    with pytest.raises(ValueError, match="there are 5 domains, and 2 names"):
        jl.plot_mixture(mixture, names=["a", "b"])
    with pytest.raises(ValueError, match="none of the draws has an answer"):
        jl.plot_mixture(dataclasses.replace(mixture, feasible=np.zeros(30, bool)))


def test_allocations_with_their_spread(plans):
    figure = jl.plot_allocation(plans, draws=1, level=0.8)
    assert [axes.get_ylabel() for axes in figure.axes] == ["params (parameters)", "tokens", "loss"]
    assert figure.axes[-1].get_xlabel() == "cost"
    for axes, values in zip(figure.axes, [plans.inputs.params, plans.inputs.tokens, plans.loss], strict=True):
        (median,) = axes.lines
        np.testing.assert_allclose(median.get_xdata(), plans.cost[:, 0], rtol=1e-12)
        np.testing.assert_allclose(median.get_ydata(), np.median(values, axis=1), rtol=1e-12)
        low, high = ends(bands(axes)[0], median.get_xdata())
        np.testing.assert_allclose([low, high], np.quantile(values, [0.1, 0.9], axis=1), rtol=1e-12)
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log", "linear"]
    turned = jl.plot_allocation(jax.tree.map(np.transpose, plans), level=0.8)
    for axes, other in zip(figure.axes, turned.axes, strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), other.lines[0].get_ydata())
    figure.canvas.draw()


def test_allocations_for_targets(plans):
    loss = np.linspace(2, 2.5, 5)[:, None] * np.ones(30)
    cost = plans.inputs.params**2
    tokens = np.full((5, 30), 1e10)  # given, and not searched for
    inputs = dataclasses.replace(plans.inputs, tokens=tokens)
    figure = jl.plot_allocation(dataclasses.replace(plans, loss=loss, cost=cost, inputs=inputs), draws=-1)
    assert [axes.get_ylabel() for axes in figure.axes] == ["params (parameters)", "cost"]
    assert figure.axes[-1].get_xlabel() == "loss"
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), np.median(cost, axis=1), rtol=1e-12)


def test_the_best_allocation_among_draws(plans):
    of_draw = jax.tree.map(lambda values: np.asarray(values)[:, 7], plans)
    figure = jl.plot_allocation(plans, of_draw, draws=1)
    for axes, values in zip(figure.axes, [of_draw.inputs.params, of_draw.inputs.tokens, of_draw.loss], strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), values)
    with pytest.raises(ValueError, match=r"best must have one answer to each of 5 problems, not shape \(5, 30\)"):
        jl.plot_allocation(plans, plans, draws=1)


def test_bad_allocations(plans):
    with pytest.raises(ValueError, match="must have an axis of draws and one of budgets; it has shape \\(\\)"):
        jl.plot_allocation(dataclasses.replace(plans, loss=2.0))
    lost = dataclasses.replace(plans, converged=(np.arange(5) != 2)[:, None] & np.ones(30, bool))
    with pytest.raises(ValueError, match="none of the draws has an answer to problem 2"):
        jl.plot_allocation(lost, draws=1)
    with pytest.raises(ValueError, match="must have one budget"):
        jl.plot_allocation(plans)  # whose draws are along the other axis
