"""The command that draws a fit."""

from __future__ import annotations

import argparse
import logging
import os
from typing import Any

from jaxlaws.cli.fitting import runs_in_file, source_name
from jaxlaws.cli.shared import (
    Command,
    NotFoundError,
    attended,
    drop_argument,
    known_law,
    law_argument,
    level,
    source_arguments,
)
from jaxlaws.fitting.estimation import fit_runs
from jaxlaws.fitting.objectives import OBJECTIVES
from jaxlaws.tables import DataError

__all__ = ["add_commands"]

# Each with what keeps the time out of it, so that the same figure is the same file.
FIGURES: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}

PLOT = """\
FILE is a table of runs, as for "jaxlaws predict", with a column per input and per output of the law. All groups are
fitted. The figure shows the runs and the law with its interval, also beyond the runs, in a panel per group, and below
it the residuals; for a law with several outputs, or a vector as input, measured against predicted values. Runs of
weight 0, which the fit does not see, are hollow.

The exit status is 1 if the search did not end at the best for some group that is drawn, and 2 for bad input."""


def add_commands(command: Command) -> None:
    """Add the commands to the parser."""
    sub = command(
        "plot",
        _plot,
        "fit a law to measured runs, and draw both",
        "jaxlaws plot parallel runs.csv -o fit.png\n"
        "jaxlaws plot sft runs.csv --group \"('gpt2', 'flan')\" -o fit.svg\n"
        "jaxlaws plot chinchilla runs.parquet --x tokens --objective squared --level 0.5 -o fit.pdf",
        PLOT,
    )
    law_argument(sub)
    sub.add_argument("table", metavar="FILE", help="the table")
    sub.add_argument("-o", "--output", metavar="OUT", required=True, help="file to write: .png, .svg or .pdf")
    about = "draw this group; can be given several times (default: all, if they are at most 12)"
    sub.add_argument("--group", metavar="G", action="append", dest="groups", help=about)
    about = 'column with the group of each run (default "group", where there is one)'
    sub.add_argument("--group-column", metavar="C", help=about)
    sub.add_argument("--weights", metavar="COLUMN", help="column with the weight of each run (default: 1)")
    drop_argument(sub)
    about = "input on the horizontal axis (default: the first one that differs between the runs)"
    sub.add_argument("--x", metavar="COLUMN", help=about)
    about = "what is minimised (default: as the law says)"
    sub.add_argument("--objective", choices=tuple(OBJECTIVES), help=about)
    sub.add_argument("--level", metavar="P", type=level, default=0.9, help="probability of the interval (default 0.9)")
    source_arguments(sub)


def _plot(args: argparse.Namespace) -> None:
    from jaxlaws import files, plots

    law = known_law(args.law)
    form = os.path.splitext(args.output)[1].lower().removeprefix(".")
    if form not in FIGURES:
        raise DataError(f"{args.output}: the name of a figure ends in .{', .'.join(FIGURES)}, which tells its format")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of caches that it makes
    try:
        matplotlib = plots.load_matplotlib()
        plots.axis_of(law, args.x)  # what is wrong is told before the fit
        with files.whole_file(args.output) as file, attended():
            try:
                runs = runs_in_file(law, args, args.group_column)
                groups = plots.groups_of(law, runs.groups, args.groups)
                fit = fit_runs(runs, objective=args.objective)
            except DataError as error:
                raise DataError(f"{source_name(args)}: {error}") from None
            figure = plots.plot_fit(fit, groups, args.x, args.level)
            with matplotlib.rc_context({"svg.hashsalt": "jaxlaws"}):
                figure.savefig(file, format=form, dpi=150, metadata=FIGURES[form])
    except (ImportError, ValueError) as error:
        raise DataError(str(error)) from None
    lost = [name for name in groups if not fit.converged[name]]
    if lost:
        raise NotFoundError(f"the search did not converge for {', '.join(map(repr, lost))}")
