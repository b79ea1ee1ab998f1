"""The command that fits a law to measured runs."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from jaxlaws.cli.shared import (
    ERRORS,
    Command,
    NotFoundError,
    count_of,
    drop_argument,
    known_law,
    law_argument,
    print_table,
    seed,
    source_arguments,
    whole_table,
)
from jaxlaws.fitting.bootstrap import bootstrap
from jaxlaws.fitting.estimation import Fit, fit_runs
from jaxlaws.fitting.objectives import OBJECTIVES
from jaxlaws.fitting.runs import Runs, read_runs
from jaxlaws.fitting.storage import coefs_text
from jaxlaws.law import Law, variables
from jaxlaws.scores import scores_of
from jaxlaws.tables import DataError
from jaxlaws.text import printable

__all__ = ["add_commands", "runs_in_file", "source_name"]

_Table: TypeAlias = tuple[list[str], list[list[str]]]

BRACKETS = "in brackets: standard errors, in units of the last digit"

NAME = 24  # letters of the name of a group that are kept on one line

FIT = """\
FILE is a table of runs, as for "jaxlaws predict", with a column per input and per output of the law. All groups are
fitted at once, each coefficient that the law calls shared to the runs of all.

The table shows each coefficient with its standard error; R2 on the runs of the fit; and the share of the starts that
ended at this minimum, since few of many are a sign that there may be a better one. What to know of a coefficient
before one relies on it is said below. A coefficient without an error is fixed, on a bound, or not told by the runs.

Columns with other names than the law's are read with --rename.

What -o writes can be used in place of the coefficients of the law, with --coefs, by the other commands.

The exit status is 1 if the search did not end at the best for some group, and 2 for bad input."""


def add_commands(command: Command) -> None:
    """Add the commands to the parser."""
    sub = command(
        "fit",
        _fit,
        "fit a law to measured runs",
        "jaxlaws fit sft runs.csv -o coefs.json && jaxlaws predict sft sft_data_size=1e6 --coefs coefs.json --group G\n"
        "jaxlaws fit domain_mixture runs.csv --draws draws.parquet && jaxlaws mixture domain_mixture --draws "
        "draws.parquet\n"
        "jaxlaws fit chinchilla runs.parquet --objective squared --starts 500\n"
        "jaxlaws fit chinchilla runs.csv --rename n=params --rename d=tokens\n"
        "jaxlaws fit chinchilla runs.csv --fixed alpha=0.35,beta=0.37 --bounds E=1:2,A=:1e4\n"
        "jaxlaws fit parallel runs.csv --group corpus --weights repetitions --shared alpha --json",
        FIT,
    )
    law_argument(sub)
    sub.add_argument("table", metavar="FILE", help="the table")
    source_arguments(sub)
    about = 'column with the group of each run (default "group", where there is one)'
    sub.add_argument("--group", "--group-column", metavar="COLUMN", help=about)
    sub.add_argument("--weights", metavar="COLUMN", help="column with the weight of each run (default: 1)")
    drop_argument(sub)
    about = "what is minimised: squared errors, relative ones, or Huber's function of those of the logarithm, which "
    about += "minds outliers less (default: as the law says)"
    sub.add_argument("--objective", choices=tuple(OBJECTIVES), help=about)
    about = "coefficients with one value for all groups (default: those of the law)"
    sub.add_argument("--shared", metavar="NAME,...|none", type=_names, help=about)
    about = "coefficients that are not fitted"
    sub.add_argument("--fixed", metavar="NAME=X,...", type=_values, action="append", default=[], help=about)
    about = "least and largest values of coefficients, in place of those of the law; E=0: has no largest one"
    sub.add_argument("--bounds", metavar="NAME=X:Y,...", type=_bounds, action="append", default=[], help=about)
    about = "how many points the search starts from (default 64, or 16 for a single coefficient that is searched for)"
    sub.add_argument("--starts", metavar="N", type=count_of("starts"), help=about)
    sub.add_argument("--seed", metavar="N", type=seed, default=0, help="which points (default 0)")
    about = "file to write draws of the coefficients to, in Parquet: fits to resampled runs (bootstrap)"
    sub.add_argument("--draws", metavar="DRAWS", help=about)
    sub.add_argument("--resamples", metavar="N", type=count_of("draws"), help="how many draws (default 1000)")
    about = "input whose values tell which runs are drawn together (default: runs are drawn one by one)"
    sub.add_argument("--clusters", metavar="INPUT", help=about)
    sub.add_argument("-o", "--output", metavar="OUT", help="file to write the coefficients to, in JSON")
    sub.add_argument("--json", action="store_true", help="print what -o writes")


# What the user types.


def _names(text: str) -> list[str]:
    return [] if text == "none" else [word.strip() for word in text.split(",")]


def _values(text: str) -> dict[str, float]:
    return {name: _number(value) for name, value in _entries(text, "alpha=0.35,E=1.7")}


def _bounds(text: str) -> dict[str, tuple[float | None, float | None]]:
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, value in _entries(text, "E=0:3,alpha=:1"):
        low, sign, high = value.partition(":")
        if not sign:
            raise argparse.ArgumentTypeError(f"{value!r} is not a range like 0:3, 0: or :3")
        found[name] = (_number(low) if low.strip() else None, _number(high) if high.strip() else None)
    return found


def _entries(text: str, example: str) -> Iterable[tuple[str, str]]:
    entries = [tuple(map(str.strip, word.partition("="))) for word in text.split(",")]
    if not all(name and sign for name, sign, _ in entries):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list like {example}")
    return _once((name, value) for name, _, value in entries)


def _once(entries: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    found: dict[str, Any] = {}
    for name, value in entries:
        if name in found:
            raise argparse.ArgumentTypeError(f"{name!r} is given twice")
        found[name] = value
    return list(found.items())


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return found


def _merged(option: str, given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What an option was given, all times together."""
    try:
        return dict(_once((name, value) for each in given for name, value in each.items()))
    except argparse.ArgumentTypeError as error:
        raise DataError(f"--{option}: {error}") from None


# What is done.


def _fit(args: argparse.Namespace) -> None:
    from jaxlaws import files

    law = known_law(args.law)
    if args.draws is None and (args.resamples is not None or args.clusters is not None):
        raise DataError("--resamples and --clusters are for --draws")
    if args.draws is not None and not os.path.isdir(folder := os.path.dirname(args.draws) or "."):
        raise DataError(f"{args.draws}: there is no folder {folder}")
    fixed, bounds = _merged("fixed", args.fixed), _merged("bounds", args.bounds)
    with contextlib.ExitStack() as stack:
        # Opened first: what is wrong with it is told before the search.
        file = stack.enter_context(files.whole_file(args.output)) if args.output not in (None, "-") else None
        try:
            fit = fit_runs(
                runs_in_file(law, args, args.group),
                objective=args.objective,
                shared=args.shared,
                fixed=fixed,
                bounds=bounds,
                starts=args.starts,
                seed=args.seed,
            )
        except DataError as error:
            raise DataError(f"{source_name(args)}: {error}") from None
        except ValueError as error:
            raise DataError(str(error)) from None
        if args.draws is not None:
            try:
                bootstrap(fit, args.resamples or 1000, clusters=args.clusters, seed=args.seed).save(args.draws)
            except ValueError as error:
                raise DataError(str(error)) from None
        if file is not None:
            file.write(coefs_text(fit).encode())
    if args.json or args.output == "-":
        sys.stdout.write(coefs_text(fit))
    else:
        _show(fit)
    lost = [name for name, converged in fit.converged.items() if not converged]
    if lost:
        names = ", ".join(map(repr, lost[:5])) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        count = f"{len(lost)} of {len(fit.coefs)} groups" if len(fit.coefs) > 1 else "the search"
        raise NotFoundError(f"{count} did not converge{f': {names}' if len(fit.coefs) > 1 else ''}")


def source_name(args: argparse.Namespace) -> str:
    """What errors in the file begin with."""
    return "standard input" if args.table == "-" else str(args.table)


def runs_in_file(law: Law, args: argparse.Namespace, group: str | None) -> Runs:
    """The runs in the file, whose groups are in this column."""
    table = whole_table(args, args.table, [law], [args.weights] if args.weights else [])
    runs = read_runs(law, table, group, args.weights, drop_missing=args.drop_missing, first_row=1)
    runs.dropped.warn()
    return runs


# What people see.


def _show(fit: Fit) -> None:
    """The coefficients with their errors, how well they fit, and what to know of them."""
    count = f"{len(fit.coefs)} groups" if len(fit.coefs) > 1 else f"group {next(iter(fit.coefs))}"
    fixed = f", {', '.join(fit.fixed)} fixed" if fit.fixed else ""
    print(printable(f"{fit.law.name}, {count}, {np.sum(fit.runs.weights > 0):,} runs, {ERRORS[fit.objective]}{fixed}"))
    if any(v.shape for v in variables(fit.law.coefs)):
        _show_arrays(fit)
    elif len(fit.coefs) == 1:
        _show_one(fit)
    else:
        _show_groups(fit)


def _r2(fit: Fit) -> dict[str, str]:
    """R2 of each group."""
    law, runs = fit.law, fit.runs
    predicted = runs.measured - fit.residuals.reshape(runs.measured.shape)
    chosen = {name: runs.group == i for i, name in enumerate(fit.coefs)}
    return {name: f"{scores_of(law, predicted[mine], runs.measured[mine]).r2:.6f}" for name, mine in chosen.items()}


def _starts(fit: Fit) -> dict[str, str]:
    """The share of the starts of each group, where there was more than one."""
    return {} if all(fit.form.linear) else {name: f"{share:.0%}" for name, share in fit.share.items()}


def _show_one(fit: Fit) -> None:
    """One group of coefficients that are numbers: a row each."""
    ((name, coefs),) = fit.coefs.items()
    rows = [
        [v.name, *_texts(getattr(coefs, v.name), getattr(fit.stderr[name], v.name)), v.unit, v.description]
        for v in variables(type(coefs))
    ]
    print_table(["coefficient", "value", "error", "unit", "what"], rows)
    starts = "".join(f"; {share} of the starts converged here" for share in _starts(fit).values())
    print(f"\nR2 {_r2(fit)[name]}{starts}")
    for flag in fit.flags[name]:
        print(flag)


def _show_groups(fit: Fit) -> None:
    """Groups of coefficients that are numbers: a row per group, or where that is too wide a column per group."""
    from jaxlaws.display import screen_width, table_width

    r2, starts = _r2(fit), _starts(fit)
    alike = len(set(starts.values())) < 2
    notes: dict[str, int] = {}
    for flag in (flag for flags in fit.flags.values() for flag in flags):
        notes.setdefault(flag, len(notes) + 1)
    units = {v.name: v.unit for v in variables(fit.law.coefs)}

    def cells(name: str, text: Callable[[float, float], str]) -> dict[str, str]:
        found = {field: text(getattr(fit.coefs[name], field), getattr(fit.stderr[name], field)) for field in units}
        found |= {"R2": r2[name]} | ({} if alike else {"starts": starts[name]})
        return found | ({"notes": " ".join(str(notes[flag]) for flag in fit.flags[name])} if notes else {})

    def by_group(text: Callable[[float, float], str]) -> _Table:
        rows = {name: cells(name, text) for name in fit.coefs}
        return ["group", *next(iter(rows.values()))], [[name, *row.values()] for name, row in rows.items()]

    def by_coefficient(names: Sequence[str]) -> _Table:
        columns = [cells(name, _text) for name in names]
        rows = [[row, *(column[row] for column in columns), units.get(row, "")] for row in columns[0]]
        return ["coefficient", *names, "unit"], rows

    spare = max(max(map(len, fit.coefs)) - NAME, 0)  # longer names can be folded
    if table_width(*by_group(_text)) <= screen_width():
        print_table(*by_group(_text))
    elif table_width(*by_group(_brief)) - spare <= screen_width():
        print_table(*by_group(_brief))
        print(f"\n{BRACKETS}", end="")
    else:
        _print_chunks(list(fit.coefs), by_coefficient)
    share = f"; {next(iter(starts.values()))} of the starts of each group converged here" if starts and alike else ""
    print(f"\nR2 of all runs {fit.scores.r2:.6f}{share}")
    for note, number in notes.items():
        print(f"{number}  {note}")


def _show_arrays(fit: Fit) -> None:
    """Coefficients that are vectors and matrices: for each group, a line per vector or row of a matrix."""
    r2, starts = _r2(fit), _starts(fit)
    for name, coefs in fit.coefs.items():
        tables: dict[tuple[int, ...], list[list[str]]] = {}  # by the size of the last axis; numbers have none
        for v in variables(type(coefs)):
            value, error = (np.asarray(getattr(record, v.name)) for record in (coefs, fit.stderr[name]))
            for index in np.ndindex(value.shape[:-1]):
                label = v.name + "".join(f"[{i}]" for i in index)
                texts = map(_brief, np.ravel(value[index]).tolist(), np.ravel(error[index]).tolist())
                tables.setdefault(value.shape[-1:], []).append([label, *texts])
        print(
            f"\ngroup {printable(name)}: R2 {r2[name]}"
            + (f"; {starts[name]} of the starts converged here" if starts else "")
        )
        for size, rows in tables.items():

            def table(columns: Sequence[int], size: Any = size, rows: Any = rows) -> _Table:
                header = ["coefficient", *(f"[{i}]" if size else "" for i in columns)]
                return header, [[row[0], *(row[1 + i] for i in columns)] for row in rows]

            _print_chunks(range(*size or (1,)), table)
        for flag in fit.flags[name]:
            print(flag)
    if len(fit.coefs) > 1:
        print(f"\nR2 of all runs {fit.scores.r2:.6f}; {BRACKETS}")
    else:
        print(BRACKETS)


def _text(value: float, error: float) -> str:
    """A value with its standard error, if it has one."""
    return " ± ".join(text for text in _texts(value, error) if text)


def _brief(value: float, error: float) -> str:
    """A value with its standard error in brackets, in units of its last digit."""
    text, error_text = _texts(value, error)
    digits = error_text.replace(".", "").lstrip("0")
    if "e" in text + error_text:
        return _text(value, error)
    return f"{text}({digits})" if digits.isdecimal() else text


def _texts(value: float, error: float) -> tuple[str, str]:
    """A value, and its standard error to two digits, if it has one."""
    if math.isnan(error) or error == 0:
        return f"{value:.5g}", ""
    if math.isinf(error):
        return f"{value:.3g}", "inf"
    error = float(f"{error:.1e}")
    place = 1 - math.floor(math.log10(error))  # of its last digit, behind the point
    if place <= 6 and abs(value) < 1e6 and error < 1e6:
        value_text, error_text = (f"{round(x, place):.{max(place, 0)}f}" for x in (value, error))
        return value_text, error_text
    digits = math.floor(math.log10(max(abs(value), error))) + place + 1
    return f"{value:.{min(digits, 12)}g}", f"{error:.2g}"


def _print_chunks(columns: Sequence[Any], table: Callable[[Sequence[Any]], _Table]) -> None:
    """Tables of as many columns as fit the terminal."""
    from jaxlaws.display import screen_width, table_width

    start = 0
    while start < len(columns):
        end = start + 1
        while end < len(columns) and table_width(*table(columns[start : end + 1])) <= screen_width():
            end += 1
        if start:
            print()
        print_table(*table(columns[start:end]))
        start = end
