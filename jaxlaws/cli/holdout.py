"""Commands that fit laws to some runs and score them on others: evaluate with a hold-out, and compare."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxlaws import tables
from jaxlaws.cli.shared import (
    Command,
    count_of,
    drop_argument,
    known_law,
    law_argument,
    print_json,
    print_table,
    source_arguments,
    whole_table,
)
from jaxlaws.fitting.comparison import compare_frame
from jaxlaws.fitting.holdout import (
    SMALLEST,
    HoldOut,
    ScaleOut,
    coefficient_count,
    hold_out_runs,
    in_words,
    score_steps,
    skipped_text,
    steps_of,
)
from jaxlaws.fitting.objectives import OBJECTIVES
from jaxlaws.fitting.runs import read_runs
from jaxlaws.fitting.scales import WITHIN, names_in
from jaxlaws.law import Law, as_dict
from jaxlaws.scores import Scores
from jaxlaws.tables import DataError
from jaxlaws.text import printable

__all__ = ["EXAMPLES", "HOLD_OUT", "add_commands", "asked", "evaluate", "hold_out_arguments"]

HOLD_OUT = """\
A condition holds out runs: NAME>X, with >, >=, <, <= or ==, several joined by "and"; or "20% of NAME", the fewest of
the largest scales that have at least 20 % of the runs. NAME is any column of numbers; values that differ by less than
5 % are one scale, of which either all runs are held out or none."""

EXAMPLES = """\
jaxlaws evaluate sft runs.csv --holdout "20% of sft_data_size"
jaxlaws evaluate parallel runs.csv --holdout "num_params>2e9 and parallel_size==4"
jaxlaws evaluate parallel runs.csv --by num_params --json"""

COMPARE = """\
All laws are fitted to all runs in FILE, and with --holdout or --by to some of them, to be scored on others. The best
law is the first: by R2 on the runs that are held out, or else by AICc, Akaike's criterion for small samples, which
weighs what is left of the objective against the number of coefficients. The table needs the columns of every law."""


def add_commands(command: Command) -> None:
    """Add the command to the parser."""
    sub = command(
        "compare",
        _compare,
        "compare laws on a table of measured runs",
        "jaxlaws compare chinchilla data_constrained runs.csv\n"
        "jaxlaws compare chinchilla data_constrained runs.csv --by params\n"
        'jaxlaws compare chinchilla data_constrained runs.parquet --holdout "20% of params" --json',
        f"{COMPARE}\n\n{HOLD_OUT}",
    )
    law_argument(sub, "laws", nargs="+")
    sub.add_argument("table", metavar="FILE", help="the table")
    hold_out_arguments(sub, "squared")
    drop_argument(sub)
    about = 'column with the group of each run (default "group", where there is one)'
    sub.add_argument("--group-column", "--group", metavar="C", help=about)
    source_arguments(sub)
    sub.add_argument("--json", action="store_true", help="print JSON")


def hold_out_arguments(sub: Any, objective: str = "as the law says") -> None:
    """The options that say which runs are held out, and how the others are fitted."""
    held = sub.add_mutually_exclusive_group()
    about = 'fit to the other runs, and score on these: "num_params>2e9" or "20%% of num_params"'
    held.add_argument("--holdout", metavar="CONDITION", help=about)
    about = "fit to the runs of smaller scale, and score on the next, from scale to scale of this column"
    held.add_argument("--by", metavar="COLUMN", help=about)
    about = f"how many smaller scales a group must have for one to be predicted (default {SMALLEST})"
    sub.add_argument("--smallest", metavar="N", type=count_of("scales"), help=about)
    about = f"what a fit minimises (default: {objective})"
    sub.add_argument("--objective", choices=tuple(OBJECTIVES), help=about)
    sub.add_argument("--weights", metavar="COLUMN", help="column with the weight of each run in a fit (default: 1)")


def asked(args: argparse.Namespace) -> bool:
    """Whether runs are to be held out."""
    held_out = args.holdout is not None or args.by is not None
    for option in () if held_out else ("objective", "weights"):
        if getattr(args, option) is not None:
            raise DataError(f"--{option} is for a fit, and there is one with --holdout or --by only")
    _check_smallest(args)
    return held_out


def _check_smallest(args: argparse.Namespace) -> None:
    if args.smallest is not None and args.by is None:
        raise DataError("--smallest is for --by")


def evaluate(args: argparse.Namespace) -> None:
    """Fit a law to some of the runs in a table, and score it on the others."""
    law = known_law(args.law)
    if args.group is not None:
        raise DataError("--group: all groups of the table are fitted; --group-column says which column has them")
    if args.coefs is not None:
        raise DataError("--coefs: with --holdout or --by, coefficients are those of a fit to the table")
    with _opened(args, args.table[0], [law]) as frame:
        runs = read_runs(law, frame, args.group_column, args.weights, drop_missing=args.drop_missing, first_row=1)
        runs.dropped.warn()
        options = {"objective": args.objective}
        found: HoldOut | ScaleOut
        if args.by is None:
            found = hold_out_runs(runs, frame, args.holdout, **options)
        else:
            count = coefficient_count(runs.law, options)
            steps = steps_of(runs, frame, [law], args.by, count, args.smallest or SMALLEST, WITHIN)
            found = score_steps(runs, steps, **options)
    if isinstance(found, HoldOut):
        _show(args, found)
    else:
        _show_scales(args, found)


def _compare(args: argparse.Namespace) -> None:
    _check_smallest(args)
    chosen = [known_law(name) for name in args.laws]
    with _opened(args, args.table, chosen) as frame:
        found = compare_frame(
            chosen,
            frame,
            args.group_column,
            holdout=args.holdout,
            by=args.by,
            smallest=args.smallest or SMALLEST,
            weights=args.weights,
            drop_missing=args.drop_missing,
            first_row=1,
            objective=args.objective or "squared",
        )
    if args.json:
        about = {key: getattr(found, key) for key in ("objective", "rows", "held_out", "holdout")}
        return print_json({**about, "skipped": _skipped(found.skipped), "laws": found.table()})
    print(found.heading)
    print_table(list(found.columns), list(zip(*found.columns.values(), strict=True)))
    _print_notes(found.notes)


@contextlib.contextmanager
def _opened(args: argparse.Namespace, path: str, chosen: Sequence[Law]) -> Iterator[Any]:
    """The table in a file, with numbers in the columns that laws and hold-outs take; errors begin with its name."""
    named = names_in(args.holdout) if args.holdout is not None else [args.by] if args.by is not None else []
    try:
        table = whole_table(args, path, chosen, [*named, *([args.weights] if args.weights else [])])
        yield tables.as_frame(table)
    except DataError as error:
        raise DataError(f"{'standard input' if path == '-' else path}: {error}") from None
    except ValueError as error:  # an option
        raise DataError(str(error)) from None


def _show(args: argparse.Namespace, found: HoldOut) -> None:
    fitted = {name: count for name, count in found.fitted.items() if count}
    if args.json:
        groups = {
            name: {
                "fitted": count,
                "coefficients": as_dict(found.fit.coefs[name]),
                "flags": found.fit.flags[name],
                "held_out": dataclasses.asdict(found.group_scores[name]) if name in found.group_scores else None,
            }
            for name, count in fitted.items()
        }
        about = {"holdout": args.holdout, "objective": found.fit.objective, "fitted": sum(fitted.values())}
        return print_json({**dataclasses.asdict(found.scores), **about, "groups": groups})
    print(f"{found.fit.law.name} fitted to {sum(fitted.values())} runs; {found.scores.rows} held out: {args.holdout}")
    _print_outputs(found.scores)
    if len(found.group_scores) > 1:
        print()
        rows = [
            (name, str(fitted[name]), str(scores.rows), f"{scores.r2:.6f}", f"{scores.nmae:.6f}")
            for name, scores in found.group_scores.items()
        ]
        print_table(("group", "fitted", "held out", "R2", "NMAE"), rows)
    _print_notes(in_words([found.fit.flags[name] for name in fitted], "groups"))


def _show_scales(args: argparse.Namespace, found: ScaleOut) -> None:
    flags = [
        [level.fit.flags[g] for g in np.array(level.fit.runs.groups)[np.unique(level.fit.runs.group[level.rows])]]
        for level in found.levels
    ]
    if args.json:
        levels = [
            {
                "value": level.value,
                "fitted": level.fitted,
                "error": _error(level.residuals),
                **dataclasses.asdict(level.scores),
                "left_out": dict(level.left_out),
                "flags": in_words(said, "groups"),
            }
            for level, said in zip(found.levels, flags, strict=True)
        ]
        groups = {name: dataclasses.asdict(scores) for name, scores in found.group_scores.items()}
        about = {"by": found.column, "objective": found.levels[0].fit.objective, "error": _error(found.residuals)}
        about |= {"skipped": _skipped(found.skipped), "levels": levels, "groups": groups}
        return print_json({**dataclasses.asdict(found.scores), **about})
    print(f"{found.levels[0].fit.law.name}, each scale of {found.column} from smaller ones")
    rows = [
        (f"{level.value:g}", str(level.fitted), str(level.scores.rows), *_brief(level.scores, level.residuals))
        for level in found.levels
    ]
    rows.append(("all", "", str(found.scores.rows), *_brief(found.scores, found.residuals)))
    print_table((found.column, "fitted", "held out", "R2", "NMAE", "error"), rows)
    notes = [skipped_text(found.skipped)] if found.skipped else []
    for level in found.levels:
        left = [f"{name} ({reason})" for name, reason in level.left_out.items()]
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        notes += [f"not predicted at {level.value:g}: {', '.join(left[:5])}{more}"] if left else []
    _print_notes([*notes, *in_words([said for each in flags for said in each], "fits")])


def _print_outputs(scores: Scores) -> None:
    rows = [(name, *(f"{x:.6f}" for x in s.values())) for name, s in scores.outputs.items()]
    if len(rows) > 1:
        rows.append(("mean", *(f"{getattr(scores, key):.6f}" for key in ("r2", "nmse", "nmae"))))
    print_table((f"{scores.rows} rows", "R2", "NMSE", "NMAE"), rows)


def _print_notes(notes: Sequence[str]) -> None:
    if notes:
        print()
    for note in notes[:20]:
        print(printable(note))
    if len(notes) > 20:
        print(f"... and {len(notes) - 20} more notes; --json has them all")


def _brief(scores: Scores, residuals: np.ndarray) -> tuple[str, ...]:
    return f"{scores.r2:.6f}", f"{scores.nmae:.6f}", f"{_error(residuals):.3g}"


def _error(residuals: np.ndarray) -> float:
    """Mean absolute error."""
    return float(np.abs(residuals).mean())


def _skipped(skipped: Any) -> list[dict[str, Any]]:
    return [{"value": value, "reason": reason} for value, reason in skipped.items()]
