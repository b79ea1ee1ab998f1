"""Figures of fits with their runs, and of optima with their spread; they need matplotlib.

A figure belongs to nobody but the caller: it is saved with `figure.savefig`, and a notebook shows it.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlaws.arguments import check_kind
from jaxlaws.fitting.bootstrap import Draws
from jaxlaws.fitting.estimation import Fit, check_level
from jaxlaws.fitting.intervals import predict_interval
from jaxlaws.fitting.runs import ALONE
from jaxlaws.law import Law, UnknownNameError, Var, variables
from jaxlaws.optimize.allocation import Allocation
from jaxlaws.optimize.mixture import Mixture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["axis_of", "groups_of", "load_matplotlib", "plot_allocation", "plot_fit", "plot_mixture"]

CELLS = 12  # groups that a figure holds
LEVELS = 8  # curves of a panel
MARGIN = 0.03  # of an axis, beside what is drawn
INSIDE, BEYOND = 160, 81  # points of a curve where runs are, and beyond them
# Okabe and Ito's colours, which people tell apart whose eyes see red or green, or neither, like the other.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s")  # of the first colours, and of as many more
LIGHTEST = 0.88  # of viridis, whose end is hard to see on white
GREY, BAND, PALE, SHADE, DASHES = "0.4", 0.22, 0.25, "0.955", (0, (4, 2))


def plot_fit(
    fit: Fit | Draws, group: str | Sequence[str] | None = None, x: str | None = None, level: float = 0.9
) -> Figure:
    """A figure of a fit: the runs, the law with its interval, also beyond the runs, and the residuals.

    The output is drawn against one input, in a curve for each value of the next input that differs between the runs, or
    for 8 of these; further inputs are held at the value that most runs have, and runs with another one are pale. Laws
    with several outputs, or with vectors as inputs, are drawn as measured against predicted values, in a panel per
    output. Runs of weight 0 are hollow; triangles are residuals beyond what is shown.

    Args:
        fit: A fit, or draws of one.
        group: The group to draw, or several of them, up to 12; by default all. Each one has a panel.
        x: The input on the horizontal axis; by default the first one that differs between the runs.
        level: The probability that the intervals have: see [`predict_interval`][jaxlaws.predict_interval].

    Returns:
        A matplotlib figure that pyplot knows nothing of; `figure.savefig("fit.png")` keeps it.

    Raises:
        UnknownNameError: The fit has no such group.
        ValueError: The law has no such input, or there are too many groups.
        ImportError: matplotlib is not installed.

    Example:
        >>> import numpy as np, jaxlaws as jl
        >>> law = jl.laws["sft"]
        >>> size = np.geomspace(200, 4e5, 12)
        >>> noise = 1 + 0.01 * np.random.default_rng(0).normal(size=12)
        >>> fit = jl.fit(law, {"sft_data_size": size, "sft_loss": (1 + 5 * size**-0.3) * noise})
        >>> figure = jl.plot_fit(fit)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['sft_loss (nat/token)', 'residual (%)']
    """
    check_level(level)
    source = _fit_of(fit)
    axis = axis_of(source.law, x)
    groups = [_group(source, name) for name in groups_of(source.law, list(source.coefs), group)]
    if axis is None:
        return _against_predicted(fit, source, groups, level)
    return _curves(fit, source, groups, axis if x else None, level)


def plot_mixture(
    result: Mixture, best: Mixture | None = None, names: Sequence[str] | None = None, level: float = 0.9
) -> Figure:
    """A figure of the best proportions, and of how far they depend on what is known of the coefficients.

    Each domain has a dot at the best proportion, and a line that holds a share `level` of the draws. Beside it stands
    in which share of the draws the proportion is at a bound. Draws whose search has no answer do not count.

    Args:
        result: The answer of [`optimize_mixture`][jaxlaws.optimize_mixture] for coefficients with the draws first.
        best: The answer for the coefficients that the draws are about; without it, dots are at medians.
        names: Names of the domains, to show in place of their numbers.
        level: The share of the draws that a line holds.

    Returns:
        A matplotlib figure that pyplot knows nothing of.

    Raises:
        ValueError: The answer has other axes than that of the draws, or there is none; or names do not fit.
        ImportError: matplotlib is not installed.

    Example:
        >>> import jax, numpy as np, jaxlaws as jl
        >>> law, random = jl.laws["domain_mixture"], np.random.default_rng(0)
        >>> about = lambda c: c * (1 + 0.02 * random.normal(size=(100, *c.shape)))  # or jl.bootstrap(fit).coefs["410M"]
        >>> draws = jax.tree.map(about, law.groups["410M"])
        >>> best = jl.optimize_mixture(law, "410M", in_range=True)
        >>> figure = jl.plot_mixture(jl.optimize_mixture(law, draws, in_range=True), best)
        >>> figure.axes[0].get_xlabel()
        'proportion'
    """
    tail = (1 - check_level(level)) / 2
    check_kind(result, Mixture, "the answer of jl.optimize_mixture")
    p = np.asarray(result.proportions)
    if p.ndim != 2:
        raise ValueError(f"proportions must have axes of draws and of domains, not shape {p.shape}")
    domains = p.shape[1]
    if names is not None and len(names) != domains:
        raise ValueError(f"there are {domains} domains, and {len(names)} names of them")
    labels = [f"domain {i}" for i in range(1, domains + 1)] if names is None else [_plain(name) for name in names]
    found = _answers(result)
    if not found.any():
        raise ValueError("none of the draws has an answer")
    lower, upper = np.asarray(result.at_lower), np.asarray(result.at_upper)
    low, middle, high = np.quantile(p[found], [tail, 0.5, 1 - tail], axis=0)
    least, loss, most = np.quantile(np.asarray(result.loss)[found], [tail, 0.5, 1 - tail])
    if best is not None:
        middle, loss = np.asarray(best.proportions), np.asarray(best.loss)
        if middle.shape != (domains,):
            raise ValueError(
                f"best must be one answer for {domains} domains; its proportions have shape {middle.shape}"
            )
    figure = _figure(8, 1.6 + 0.36 * domains)
    panel = figure.subplots()
    place = range(domains)
    panel.hlines(place, low, high, color=COLOURS[0], lw=2.5, alpha=0.6)
    panel.plot(middle, place, "o", color=COLOURS[0], ms=7)
    for i in place:
        shares = {"lower": float(np.mean(lower[found, i])), "upper": float(np.mean(upper[found, i]))}
        said = [f"{_percent(round(share, 3))} at the {side} bound" for side, share in shares.items() if share > 0]
        panel.text(1.02, i, ", ".join(said), transform=panel.get_yaxis_transform(), va="center", fontsize=9, color=GREY)
    panel.set_yticks(place, labels)
    panel.set_ylim(domains - 0.5, -0.5)
    panel.set_xlim(left=0)
    panel.set_xlabel("proportion")
    panel.grid(axis="x", alpha=0.3, lw=0.6)
    dot = "median" if best is None else "best"
    about = f"{dot} (dot) and {_percent(level)} (line) of {_count_text(found)}"
    _headed(figure, panel, "Best mixture", f"{about}\nloss {loss:.4g} ({least:.4g} to {most:.4g})")
    _undressed(panel)
    return figure


def plot_allocation(result: Allocation, best: Allocation | None = None, draws: int = 0, level: float = 0.9) -> Figure:
    """A figure of the best inputs for each budget, and of how far they depend on what is known of the coefficients.

    Each input that was searched for has a panel, and so has the loss: a line at the best value, and a band that holds a
    share `level` of the draws. For answers to targets, the loss is the horizontal axis, and the cost has a panel. Draws
    whose search has no answer do not count.

    Args:
        result: The answer of [`allocate`][jaxlaws.allocate] with an axis of draws and one of budgets or targets.
        best: The answers for the coefficients that the draws are about; without them, lines are at medians.
        draws: Which axis is that of the draws.
        level: The share of the draws that a band holds.

    Returns:
        A matplotlib figure that pyplot knows nothing of.

    Raises:
        ValueError: The answer has other axes, or the draws were given different budgets, or do not use them up.
        ImportError: matplotlib is not installed.

    Example:
        >>> import jax, numpy as np, jaxlaws as jl
        >>> law, random = jl.laws["chinchilla"], np.random.default_rng(0)
        >>> about = lambda c: c * (1 + 0.02 * random.normal(size=(100, 1)))  # or jl.bootstrap(fit).coefs[...]
        >>> draws = jax.tree.map(about, law.groups["besiroglu2024"])
        >>> budget = np.geomspace(1e19, 1e21, 11)
        >>> best = jl.allocate(law, "besiroglu2024", budget=budget)
        >>> figure = jl.plot_allocation(jl.allocate(law, draws, budget=budget), best)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['params (parameters)', 'tokens', 'loss']
    """
    tail = (1 - check_level(level)) / 2
    check_kind(result, Allocation, "the answer of jl.allocate")
    shape = np.shape(result.loss)
    if len(shape) != 2 or draws not in (0, 1, -1, -2):
        raise ValueError(f"the answer must have an axis of draws and one of budgets; it has shape {shape}")
    found = np.moveaxis(_answers(result), draws, 0)
    if not found.any(axis=0).all():
        raise ValueError(f"none of the draws has an answer to problem {int(found.any(axis=0).argmin())}")

    def drawn(values: Any) -> np.ndarray:
        """Values [draw, problem], NaN where there is no answer."""
        return np.where(found, np.moveaxis(np.broadcast_to(np.asarray(values), shape), draws, 0), np.nan)

    def same(values: np.ndarray) -> bool:
        """Whether all draws of a problem have about the same value."""
        least, largest = np.nanmin(values, 0), np.nanmax(values, 0)
        return bool(np.all(largest - least <= 1e-4 * np.abs(largest)))

    if best is not None and np.shape(best.loss) != found.shape[1:]:
        raise ValueError(
            f"best must have one answer to each of {found.shape[1]} problems, not shape {np.shape(best.loss)}"
        )
    cost, loss = drawn(result.cost), drawn(result.loss)
    by_budget = same(cost)
    if not by_budget and not same(loss):
        raise ValueError("the draws of a problem differ in cost and in loss; they must have one budget, and use it up")
    along = np.nanmedian(cost if by_budget else loss, 0)
    shown = {}
    for v in variables(type(result.inputs)):
        values = drawn(getattr(result.inputs, v.name))
        if not (same(values) and same(values.T)):
            shown[_label(v)] = values, best and getattr(best.inputs, v.name)
    if by_budget:
        shown["loss"] = loss, best and best.loss
    else:
        shown["cost"] = cost, best and best.cost
    order = np.argsort(along)
    figure = _figure(6.5, 0.8 + 2.1 * len(shown))
    panels = np.atleast_1d(figure.subplots(len(shown), sharex=True))
    for panel, (label, (values, of_best)) in zip(panels, shown.items(), strict=True):
        low, middle, high = np.nanquantile(values[:, order], [tail, 0.5, 1 - tail], axis=0)
        if best is not None:
            middle = np.broadcast_to(np.asarray(of_best), along.shape)[order]
        panel.fill_between(
            along[order], low, high, color=COLOURS[0], alpha=BAND, lw=0, label=f"{_percent(level)} of the draws"
        )
        panel.plot(along[order], middle, color=COLOURS[0], lw=1.5, label="median" if best is None else "best")
        panel.set_ylabel(label)
        _scaled(panel, "y", *_with_margin(min(low.min(), middle.min()), max(high.max(), middle.max())))
        panel.grid(alpha=0.3, lw=0.6)
        _undressed(panel)
    _scaled(panels[-1], "x", along.min(), along.max())
    panels[-1].set_xlabel("cost" if by_budget else "loss")
    panels[0].legend(frameon=False)
    figure.align_ylabels()
    _headed(figure, panels[0], "Best allocation", _count_text(found))
    return figure


def _answers(result: Any) -> np.ndarray:
    """Whether the search has an answer."""
    found: np.ndarray = np.asarray(result.converged) & np.asarray(result.feasible)
    return found


def _count_text(found: np.ndarray) -> str:
    lost = int((~found).sum())
    return f"{len(found):,} draws" + (f"; {lost:,} of {found.size:,} searches without an answer" if lost else "")


# What a figure of a fit is of.


def _fit_of(fit: Fit | Draws) -> Fit:
    check_kind(fit, (Fit, Draws), "a fit, as jl.fit gives one,")
    if isinstance(fit, Fit):
        return fit
    if fit.fit is None:
        raise ValueError("a figure takes a fit, or draws of one; these draws are of an unknown fit")
    return fit.fit


def groups_of(law: Law, known: Sequence[str], group: str | Sequence[str] | None) -> list[str]:
    """The groups that a figure is of."""
    names = list(known) if group is None else [group] if isinstance(group, str) else list(group)
    for name in names:
        if name not in known:
            raise UnknownNameError.of("group of the fit", name, known)
    if not 0 < len(names) <= CELLS:
        raise ValueError(f"a figure of {law.name} holds 1 to {CELLS} groups, not {len(names)}; name those to draw")
    return names


def axis_of(law: Law, x: str | None) -> Var | None:
    """The input of that name, or the first one; None for a law that is not drawn in curves."""
    inputs = variables(law.inputs)
    curves = not law.output_shape and not any(v.shape for v in inputs)
    if x is None:
        return inputs[0] if curves else None
    if not curves:
        raise ValueError(f"{law.name} is drawn as measured against predicted values, and not along {x!r}")
    for v in inputs:
        if x == v.name or x in v.aliases:
            return v
    raise ValueError(f"{law.name} has no input {x!r}; it has {', '.join(v.name for v in inputs)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Group:
    """Runs of one group.

    Attributes:
        name: The name of the group.
        inputs: Inputs by name, [run, ...].
        measured: What was measured, [run, output].
        predicted: What is predicted, [run, output].
        residual: Measured less predicted, in `unit`, [run, output].
        unit: Percent of the prediction, unless that changes its sign.
        counted: Whether a run counted in the fit, [run].
    """

    name: str
    inputs: dict[str, np.ndarray]
    measured: np.ndarray
    predicted: np.ndarray
    residual: np.ndarray
    unit: str
    counted: np.ndarray


def _group(source: Fit, name: str) -> _Group:
    runs = source.runs
    residual = source.residuals.reshape(runs.measured.shape)
    predicted = runs.measured - residual
    counted = runs.weights > 0
    unit = source.law.output_unit
    if (predicted[counted] > 0).all() or (predicted[counted] < 0).all():
        with np.errstate(divide="ignore", invalid="ignore"):  # of runs that did not count
            unit, residual = "%", 100 * residual / np.abs(predicted)
    mine = (runs.group == list(source.coefs).index(name)) & ~runs.left_out
    return _Group(
        name=name,
        inputs={v.name: np.asarray(getattr(runs.inputs, v.name), np.float64)[mine] for v in variables(runs.law.inputs)},
        measured=runs.measured[mine],
        predicted=predicted[mine],
        residual=residual[mine],
        unit=unit,
        counted=counted[mine],
    )


# Curves: a panel per group, and in it a line per value of another input.


@dataclasses.dataclass(frozen=True, kw_only=True)
class _View:
    """What the panels of a figure share.

    Attributes:
        x: The input on the horizontal axis.
        wide: Whether that is logarithmic.
        low: Where it begins, a little before the runs.
        high: Where it ends, beyond the runs.
        other: The input that tells the lines apart, if there is one.
        levels: Its values that have a line.
        held: What further inputs are held at.
    """

    x: Var
    wide: bool
    low: float
    high: float
    other: Var | None
    levels: np.ndarray
    held: dict[str, float]

    def along(self, low: float, high: float, count: int) -> np.ndarray:
        """Points of the horizontal axis."""
        points: np.ndarray = _spaced(low, high, count, self.wide)
        return points

    def colours(self, values: np.ndarray) -> np.ndarray:
        """A colour for each value of the other input: darker to lighter, which all eyes see."""
        if self.other is None:
            return np.asarray(load_matplotlib().colors.to_rgba_array([COLOURS[0]] * len(values)))
        part = np.interp(values, self.levels, np.linspace(0, LIGHTEST, len(self.levels)))
        return np.asarray(load_matplotlib().colormaps["viridis"](part))


def _view(law: Law, groups: Sequence[_Group], x: Var | None) -> _View:
    inputs = variables(law.inputs)
    values = {v.name: np.concatenate([group.inputs[v.name] for group in groups]) for v in inputs}
    counted = np.concatenate([group.counted for group in groups])
    varied = [v for v in inputs if np.ptp(values[v.name]) > 0]
    x = x or next(iter(varied), inputs[0])
    other = next((v for v in varied if v is not x), None)
    levels = np.zeros(1)
    if other is not None:
        levels = np.unique(values[other.name])
        if len(levels) > LEVELS:  # as many runs between each two
            parts = np.linspace(0.02, 0.98, LEVELS)  # so that single runs far off do not have a line
            levels = np.unique(np.quantile(values[other.name], parts, method="nearest"))
    low, high = values[x.name].min(), values[x.name].max()
    most = values[x.name][counted].max(initial=low)
    # Beyond the runs lies half as much as they span, but at least twice and at most ten times the largest of them.
    high = max(high, most * min(max(math.sqrt(most / low), 2), 10) if low > 0 else most + (most - low or 1) / 2)
    wide = _is_wide(low, high)
    low, high = _with_margin(low, high)
    held = {v.name: _usual(values[v.name]) for v in inputs if v is not x and v is not other}
    return _View(x=x, wide=wide, low=float(low), high=float(high), other=other, levels=levels, held=held)


def _usual(values: np.ndarray) -> float:
    """The value that most runs have; of several, the one in their middle."""
    each, counts = np.unique(values, return_counts=True)
    most = each[counts == counts.max()]
    return float(most[(len(most) - 1) // 2])


def _curves(fit: Fit | Draws, source: Fit, groups: list[_Group], x: Var | None, level: float) -> Figure:
    view = _view(source.law, groups, x)
    figure, cells = _cells(len(groups), _heading(source, groups))
    (output,) = variables(source.law.outputs)
    held = "".join(f", {name} = {_short(value)}" for name, value in view.held.items())
    banded = False
    for group, cell in zip(groups, cells, strict=True):
        banded |= _draw_curves(fit, group, view, level, cell)
        cell.say(group.name if len(groups) > 1 else "", _size([group], 0), source.flags[group.name])
    _label_axes(figure, cells, _label(view.x) + held, _label(output), groups[0].unit)
    _curve_legend(figure, view, level if banded else None, groups)
    return figure


def _draw_curves(fit: Fit | Draws, group: _Group, view: _View, level: float, cell: _Cell) -> bool:
    """Draw a panel; returns whether there is an interval."""
    x, measured = group.inputs[view.x.name], group.measured[:, 0]
    first, most = x.min(), x[group.counted].max(initial=x.min())
    points = np.concatenate([view.along(first, most, INSIDE), view.along(most, view.high, BEYOND)[1:]])
    given = {name: np.full(1, value) for name, value in view.held.items()} | {view.x.name: points}
    if view.other is not None:
        given[view.other.name] = view.levels[:, None]
    found = predict_interval(fit, group.name, given, level=level)
    low, middle, high = (np.broadcast_to(ends, (len(view.levels), len(points))) for ends in found)
    for i, colour in enumerate(view.colours(view.levels)):
        cell.panel.fill_between(points, low[i], high[i], color=colour, alpha=BAND, lw=0)
        cell.panel.plot(points[:INSIDE], middle[i, :INSIDE], color=colour, lw=1.5)
        cell.panel.plot(points[INSIDE - 1 :], middle[i, INSIDE - 1 :], color=colour, lw=1.5, ls=DASHES)
    colours = view.colours(group.inputs[view.other.name] if view.other else x)
    elsewhere = np.any([group.inputs[name] != value for name, value in view.held.items()] or [x != x], axis=0)
    colours[elsewhere, 3] = PALE
    for axes in (cell.panel, cell.strip):
        axes.axvspan(most, view.high, color=SHADE, lw=0, zorder=0)
    _dots(cell.panel, x, measured, colours, group.counted)
    _draw_residuals(cell.strip, x, group.residual[:, 0], colours, group.counted, _strip_end(group.residual))
    _scaled(cell.panel, "x", view.low, view.high, view.wide)
    _scaled(cell.panel, "y", *_limits(measured, middle, (low, high)))
    return bool((np.isfinite(low) & np.isfinite(high)).any())


def _limits(measured: np.ndarray, curves: np.ndarray, bands: Any) -> tuple[float, float]:
    """What of an axis is shown: all runs, and of curves and bands what does not make them small."""
    low, high = _extent(measured)
    span = high - low or abs(high) or 1
    for values, most in ((curves, 0.6), (bands, 0.2)):
        least, largest = _extent(measured, values)
        low, high = min(low, max(least, low - most * span)), max(high, min(largest, high + most * span))
    least, _ = _extent(measured)
    return _with_margin(max(low, least / 10) if least > 0 else low, high)


def _curve_legend(figure: Figure, view: _View, level: float | None, groups: Sequence[_Group]) -> None:
    lines = load_matplotlib().lines.Line2D
    handles, labels = [], []
    if view.other is not None:
        for value, colour in zip(view.levels, view.colours(view.levels), strict=True):
            handles.append(lines([], [], color=colour, marker="o", ms=4.5, lw=1.5))
            labels.append(_short(value))
    grey = GREY if view.other is not None else COLOURS[0]
    marks = {"marker": "o", "ms": 4.5, "ls": "", "color": grey}
    elsewhere = any((group.inputs[name] != value).any() for group in groups for name, value in view.held.items())
    hollow = not all(group.counted.all() for group in groups)
    band = load_matplotlib().patches.Patch(color=grey, alpha=BAND, lw=0)
    about = [
        (lines([], [], **marks), "run", view.other is None),
        (lines([], [], **{**marks, "alpha": PALE}), f"run at another\n{' or '.join(view.held)}", elsewhere),
        (lines([], [], **{**marks, "mfc": "none"}), "run of weight 0", hollow),
        (lines([], [], color=grey, lw=1.5), "law", view.other is None),
        (lines([], [], color=grey, lw=1.5, ls=DASHES), "extrapolated", True),
    ]
    if level is not None:
        about.append((band, f"{_percent(level)} interval\nof the law", True))
    handles += [handle for handle, _, there in about if there]
    labels += [label for _, label, there in about if there]
    _legend(figure, handles, labels, _label(view.other) if view.other is not None else None)


# Measured against predicted values: a panel per output, and in it a colour per group.


def _against_predicted(fit: Fit | Draws, source: Fit, groups: list[_Group], level: float) -> Figure:
    outputs = source.law.output_columns
    flags = [f"{group.name}: {'; '.join(source.flags[group.name])}" for group in groups if source.flags[group.name]]
    figure, cells = _cells(len(outputs), _heading(source, groups), "; ".join(flags))
    unit = "" if source.law.output_unit == "1" else f" ({source.law.output_unit})"
    found = [predict_interval(fit, group.name, group.inputs, level=level) for group in groups]
    colour_of = load_matplotlib().colors.to_rgba
    for i, (name, cell) in enumerate(zip(outputs, cells, strict=True)):
        most = _strip_end(np.concatenate([group.residual[:, i] for group in groups]))
        for g, (group, interval) in enumerate(zip(groups, found, strict=True)):
            low, _, high = (each.reshape(group.predicted.shape)[:, i] for each in interval)
            colour, marker = COLOURS[g % len(COLOURS)], MARKERS[g // len(COLOURS)]
            colours = np.tile(colour_of(colour), (len(low), 1))
            predicted = group.predicted[:, i]
            cell.panel.hlines(group.measured[:, i], low, high, color=colour, alpha=0.5, lw=1)
            _dots(cell.panel, predicted, group.measured[:, i], colours, group.counted, marker)
            _draw_residuals(cell.strip, predicted, group.residual[:, i], colours, group.counted, most, marker)
        ends = _extent(*(each[:, i] for group in groups for each in (group.measured, group.predicted)))
        least, largest = _with_margin(*ends)
        cell.panel.plot((least, largest), (least, largest), color=GREY, lw=0.8, zorder=0)
        cell.panel.set(xlim=(least, largest), ylim=(least, largest))
        cell.say(name if len(outputs) > 1 else "", _size(groups, i), ())
    _label_axes(figure, cells, f"predicted{unit}", f"measured{unit}", groups[0].unit)
    lines = load_matplotlib().lines.Line2D
    handles: list[Any] = [
        lines([], [], ls="", marker=MARKERS[g // len(COLOURS)], ms=4.5, color=COLOURS[g % len(COLOURS)])
        for g in range(len(groups))
    ]
    labels = [_plain(group.name) for group in groups]
    if len(groups) == 1:
        labels = ["run"]
    if not all(group.counted.all() for group in groups):
        handles.append(lines([], [], ls="", marker="o", ms=4.5, color=GREY, mfc="none"))
        labels.append("run of weight 0")
    handles += [lines([], [], color=GREY, alpha=0.5, lw=1), lines([], [], color=GREY, lw=0.8)]
    labels += [f"{_percent(level)} interval\nof the law", "as predicted"]
    _legend(figure, handles, labels, None)
    return figure


# Parts of figures.


@dataclasses.dataclass(frozen=True)
class _Cell:
    """A panel, and the strip of residuals below it."""

    panel: Any
    strip: Any
    width: int  # letters that have room above it

    def say(self, name: str, size: str, flags: Sequence[str]) -> None:
        """What the panel shows, and what to know of it."""
        lines = [textwrap.shorten(_plain(name), self.width, placeholder="...")] if name else []
        lines += [size, *textwrap.wrap(_plain("; ".join(flags)), self.width, max_lines=2, placeholder=" ...")]
        self.panel.set_title("\n".join(lines), loc="left", fontsize=9, color=GREY)


def _cells(count: int, heading: str, flags: str = "") -> tuple[Figure, list[_Cell]]:
    """A figure with so many panels, side by side and in lines of up to four."""
    columns = count if count <= 3 else 2 if count == 4 else math.ceil(count / math.ceil(count / 4))
    lines = math.ceil(count / columns)
    figure = _figure(7.6, 5.2) if count == 1 else _figure(3.1 * columns + 1.6, 3.2 * lines + 0.4)
    width = 85 if count == 1 else 45 * columns
    said = textwrap.wrap(_plain(heading), width) + textwrap.wrap(_plain(flags), width, max_lines=2, placeholder=" ...")
    figure.suptitle("\n".join(said), x=0.01, ha="left", fontsize=12)
    outer = figure.add_gridspec(lines, columns)
    cells = []
    for i in range(count):
        inner = outer[divmod(i, columns)].subgridspec(2, 1, height_ratios=(3 if count == 1 else 2.4, 1))
        panel = figure.add_subplot(inner[0])
        strip = figure.add_subplot(inner[1], sharex=panel)
        panel.tick_params(labelbottom=False)
        for axes in (panel, strip):
            _undressed(axes)
            axes.grid(alpha=0.3, lw=0.6)
        cells.append(_Cell(panel, strip, 80 if count == 1 else 38))
    return figure, cells


def _label_axes(figure: Figure, cells: Sequence[_Cell], x: str, y: str, unit: str) -> None:
    """What is on the axes: one label for all panels of a figure, or of a line."""
    if len(cells) == 1:
        cells[0].strip.set_xlabel(x)
    else:
        figure.supxlabel(x, fontsize="medium")
    for cell in cells:
        if cell.panel.get_subplotspec().get_topmost_subplotspec().is_first_col():
            cell.panel.set_ylabel(y)
            cell.strip.set_ylabel(f"residual ({unit})" if len(cells) == 1 else f"residual\n({unit})")
    figure.align_ylabels()


def _heading(source: Fit, groups: Sequence[_Group]) -> str:
    alone = len(groups) == 1 and groups[0].name != ALONE
    return f"{source.law.name}: {source.law.title}" + (f", group {groups[0].name}" if alone else "")


def _size(groups: Sequence[_Group], output: int) -> str:
    """How many runs there are, and how far they are from the law."""
    residuals = np.concatenate([group.residual[group.counted, output] for group in groups])
    if not len(residuals):
        return "no runs"
    near = np.quantile(np.abs(residuals), 0.9)
    unit = groups[0].unit
    return f"{len(residuals):,} runs, 90% of them within {near:.2g}{unit if unit == '%' else f' {unit}'}"


def _dots(axes: Any, x: np.ndarray, y: np.ndarray, colours: np.ndarray, counted: np.ndarray, marker: str = "o") -> None:
    """Runs; those that did not count are hollow."""
    axes.scatter(x[counted], y[counted], s=18, c=colours[counted], marker=marker, edgecolors="white", lw=0.4, zorder=3)
    if not counted.all():
        axes.scatter(
            x[~counted], y[~counted], s=18, facecolors="none", edgecolors=colours[~counted], marker=marker, zorder=3
        )


def _strip_end(residuals: np.ndarray) -> float:
    """Up to where residuals are shown, so that single ones do not make all others small."""
    sizes = np.abs(residuals[np.isfinite(residuals)])
    if not sizes.any():
        return 1.0
    return float(min(sizes.max(), 4 * np.quantile(sizes, 0.9)) or sizes.max())


def _draw_residuals(
    strip: Any,
    x: np.ndarray,
    residuals: np.ndarray,
    colours: np.ndarray,
    counted: np.ndarray,
    most: float,
    marker: str = "o",
) -> None:
    """Residuals; those beyond what is shown are triangles at its ends."""
    for there, marker_there in (
        (np.abs(residuals) <= most, marker),
        (residuals > most, "^"),
        (residuals < -most, "v"),
    ):
        if there.any():
            shown = np.clip(residuals[there], -most, most)
            _dots(strip, x[there], shown, colours[there], counted[there], marker_there)
    strip.axhline(0, color=GREY, lw=0.8, zorder=1)
    strip.set_ylim(-1.2 * most, 1.2 * most)
    strip.locator_params(axis="y", nbins=4)


def _legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str], title: str | None) -> None:
    labels = [f" {label}" if label.startswith("_") else label for label in labels]  # which would be left out
    figure.legend(handles, labels, title=title, loc="outside right upper", frameon=False, alignment="left", fontsize=9)


def _scaled(axes: Any, which: str, low: float, high: float, wide: bool | None = None) -> None:
    """Set the ends of an axis, logarithmic where they are wide apart, with ticks that people read."""
    mpl = load_matplotlib()
    axis = getattr(axes, f"{which}axis")
    wide = _is_wide(low, high) if wide is None else wide
    if wide:
        getattr(axes, f"set_{which}scale")("log")
        steps = (1, 2, 5) if high < 200 * low else (1,)
        axis.set_major_locator(mpl.ticker.LogLocator(subs=steps))
        axis.set_minor_formatter(mpl.ticker.NullFormatter())
    if wide or high >= 1e4:
        axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: _short(value)))
    getattr(axes, f"set_{which}lim")(low, high)


def _headed(figure: Figure, panel: Any, heading: str, details: str) -> None:
    figure.suptitle(_plain(heading), x=0.01, ha="left", fontsize=12)
    panel.set_title(details, loc="left", fontsize=9, color=GREY)


def _undressed(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Figure:
    figure: Figure = load_matplotlib().figure.Figure(figsize=(width, height), layout="constrained")
    return figure


def load_matplotlib() -> Any:
    """The package matplotlib with what figures are made of, loaded when the first one is."""
    try:
        import matplotlib
        import matplotlib.colors
        import matplotlib.figure
        import matplotlib.lines
        import matplotlib.patches
        import matplotlib.ticker
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'jaxlaws[plot]'") from error
    return matplotlib


# Numbers and words.


def _is_wide(low: float, high: float) -> bool:
    """Whether a range spans more than a decade."""
    return low > 0 and high > 10 * low


def _with_margin(low: float, high: float) -> tuple[float, float]:
    """A little more than a range."""
    if _is_wide(low, high):
        return low * (low / high) ** MARGIN, high * (high / low) ** MARGIN
    margin = MARGIN * (high - low or abs(high) or 1)
    return low - margin, high + margin


def _spaced(low: float, high: float, count: int, wide: bool) -> np.ndarray:
    points: np.ndarray = (np.geomspace if wide else np.linspace)(low, high, count)
    points[[0, -1]] = low, high
    return points


def _extent(*values: Any) -> tuple[float, float]:
    """The least and the largest of what is finite."""
    numbers = np.concatenate([np.ravel(each) for each in values])
    numbers = numbers[np.isfinite(numbers)]
    return (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 1.0)


def _short(value: float) -> str:
    """A number as people say it: 1.5B for 1.5e9."""
    value = float(f"{value:.4g}")
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if size <= abs(value) < 1e15:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def _label(v: Var) -> str:
    return v.name if v.unit in ("1", v.name) else f"{v.name} ({v.unit})"


def _plain(text: str) -> str:
    """Text that matplotlib takes for no formula."""
    return text.replace("$", r"\$")
