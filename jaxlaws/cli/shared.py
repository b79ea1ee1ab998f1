"""What the commands share: arguments, tables in and out, and what people see."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import itertools
import json
import math
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from jaxlaws.catalogue import law_in, laws
from jaxlaws.law import Law, UnknownNameError, variables
from jaxlaws.tables import DataError, missing
from jaxlaws.text import printable

__all__ = [
    "ERRORS",
    "FORMATS",
    "PUBLISHED",
    "Command",
    "NotFoundError",
    "attended",
    "check_names",
    "chosen_law",
    "coefs_argument",
    "count_of",
    "drop_argument",
    "file_arguments",
    "floats",
    "fraction",
    "grid",
    "in_options",
    "known_group",
    "known_law",
    "law_argument",
    "level",
    "one_line",
    "open_reader",
    "open_table",
    "output_format",
    "own_error",
    "print_json",
    "print_table",
    "seed",
    "source_arguments",
    "used_names",
    "usual_format",
    "warn",
    "whole_table",
]

# Adds a command to the parser: its name, what runs it, what it does, examples, and more to say of it.
Command: TypeAlias = Callable[..., Any]

PUBLISHED = "published"  # in place of a file of draws

FORMATS = ("parquet", "csv", "jsonl")

# What a fit may minimise.
ERRORS = {"squared": "squared errors", "relative": "relative errors", "huber_log": "Huber's errors of the logarithm"}


class NotFoundError(Exception):
    """A search that found no answer, or whose answer is not to be relied on."""


def file_arguments(sub: Any) -> None:
    """The options that say where a table is written and how."""
    sub.add_argument("-o", "--output", metavar="OUT", default="-", help="file to write (default: standard output)")
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--to", choices=(*FORMATS, "text"), help="format of the output, if not told by its suffix")
    form.add_argument("--json", action="store_true", help="the same as --to jsonl")


def source_arguments(sub: Any) -> None:
    """The options that say how a table is read."""
    sub.add_argument("--from", dest="source", choices=FORMATS, help="format of FILE, if not told by its suffix")
    about = (
        "read the column OLD of FILE as NEW, such as n=params, which other options call NEW; can be given several times"
    )
    sub.add_argument("--rename", metavar="OLD=NEW", type=_renaming, action="append", default=[], help=about)


def _renaming(text: str) -> tuple[str, str]:
    old, _, new = text.rpartition("=")
    if not old or not new:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form OLD=NEW, such as n=params")
    return old, new


def drop_argument(sub: Any) -> None:
    """The option that leaves out runs without a value."""
    about = "leave out runs that lack a number, such as those that diverged and have NaN for a loss, and say how many"
    sub.add_argument("--drop-missing", action="store_true", help=about)


def coefs_argument(sub: Any) -> None:
    """The option that names coefficients of the user's own."""
    about = 'use the groups in this file, which "jaxlaws fit -o" wrote, in place of those of the law'
    sub.add_argument("--coefs", metavar="COEFS", help=about)


def law_argument(sub: Any, name: str = "law", **options: Any) -> None:
    """The argument that names a law."""
    sub.add_argument(name, metavar="LAW", help="a law of jaxlaws list, or a Python file that holds one", **options)


def known_law(name: str) -> Law:
    """The law of that name, or in that file."""
    if not name.endswith(".py"):
        return laws[name]
    try:
        return law_in(name)
    except OSError:
        raise
    except Exception as error:  # a file may raise anything
        raise DataError(own_error(error) or f"{name}: {_one_line(error)}") from None


def own_error(error: BaseException | None) -> str:
    """What to say of an error that a law in a file raised, or that such an error led to; nothing of others."""
    while error is not None:
        for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
            if frame.f_globals.get("__name__", "").startswith("law_file."):
                path = frame.f_code.co_filename
                near = os.path.relpath(path)
                return f"{path if near.startswith(os.pardir) else near}, line {line}: {_one_line(error)}"
        error = error.__context__
    return ""


def _one_line(error: BaseException) -> str:
    """The kind of an error, and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".removesuffix(": ")


def chosen_law(args: argparse.Namespace, ranged: str = "") -> Law:
    """The law that the arguments name, with the groups of a file if they name one.

    With `ranged`, the name of an option that needs it, the file must say which range it was fitted on.
    """
    from jaxlaws.fitting.storage import not_converged, read_law

    law = known_law(args.law)
    source = args.coefs or getattr(args, "draws", None)
    if source is None or source == PUBLISHED:
        return law
    law = read_law(source, law, draws=args.coefs is None)
    asked = getattr(args, "groups", None) or list(filter(None, [getattr(args, "group", None)])) or law.groups
    for group in not_converged(args.coefs) if args.coefs else ():
        if group in asked:
            warn(f"{args.coefs}: group {group}: the search for these coefficients did not converge")
    if ranged and not all(v.name in law.ranges_of(group) for group in asked for v in variables(law.inputs)):
        raise DataError(f"{source}: there is no 'range' that the coefficients were fitted on, as {ranged} needs")
    return law


def floats(text: str) -> list[float]:
    """The numbers in a text like 0.5,1."""
    try:
        return [float(x) for x in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like 0.5,1") from None


def fraction(text: str) -> float:
    """A positive number like 1% or 0.01."""
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number like 1% or 0.01")
    return found


def count_of(what: str) -> Callable[[str], int]:
    """What reads a number of things, at least one."""

    def count(text: str) -> int:
        if not text.isdecimal() or int(text) == 0:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {what}")
        return int(text)

    return count


def level(text: str) -> float:
    """A share between 0 and 1, like 90% or 0.9."""
    found = fraction(text)
    if found >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1, like 90% or 0.9")
    return found


def seed(text: str) -> int:
    """Which random numbers there are."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def in_options(text: str) -> str:
    """What a function says of its arguments, in the words of the command."""
    text = re.sub(r"(lower|upper)={'(\w+)': \.\.\.}, or another", r"--\1 \2=..., --in-range, or another", text)
    text = re.sub(r"(lower|upper)={'(\w+)': \.\.\.}", r"--\1 \2=...", text)
    text = re.sub(r"use (upper|lower)=", r"use --\1", text).replace("in_range=True", "--in-range")
    text = text.replace("drop_missing=True", "--drop-missing")
    text = re.sub(
        r"give cost=jl.costs.(\w+)\((\w+)=(\d+)\)",
        lambda named: f"give --cost {named[1]} --{named[2]} {named[3]}".replace("_", "-"),
        text,
    )
    return text.replace("give cost=", "give another --cost").replace("another cost=", "another --cost")


def warn(message: object) -> None:
    """A line on standard error."""
    print(one_line(f"jaxlaws: warning: {message}"), file=sys.stderr)


def one_line(text: str) -> str:
    """A text in one line that is safe to show on a terminal."""
    return printable(" ".join(text.splitlines()))


def known_group(law: Law, group: str) -> str:
    """The group, if the law has it."""
    if group not in law.groups:
        raise UnknownNameError.of(f"group of {law.name}", group, law.groups)
    return group


def open_table(
    args: argparse.Namespace, words: Sequence[str], numbers: Sequence[str], **options: Any
) -> tuple[str, Any]:
    """What the arguments of a command name, for its errors, and a context whose value reads the table."""
    from jaxlaws import files

    if any("=" in word for word in words) and not (len(words) == 1 and os.path.exists(words[0])):
        if args.rename:
            raise DataError("--rename is for the columns of a file; name inputs as the law does")
        return "inputs", contextlib.nullcontext(files.Reader.of(grid(words, numbers)))
    if len(words) > 1:
        raise DataError(f"one table at a time; {words[1]!r} is a second one")
    name = "standard input" if words[0] == "-" else words[0]
    return name, open_reader(args, words[0], numbers=numbers, **options)


@contextlib.contextmanager
def open_reader(
    args: argparse.Namespace,
    path: str,
    *,
    columns: Collection[str] | None = None,
    numbers: Collection[str] = (),
    text: Collection[str] = (),
    **options: Any,
) -> Iterator[Any]:
    """A table in a file, read as the arguments say; options as for `files.open_reader`."""
    from jaxlaws import files

    new_of = dict(args.rename)
    old_of = {new: old for old, new in args.rename}
    if len(old_of) < len(args.rename) or len(new_of) < len(args.rename):
        raise DataError("--rename: a column is named twice")

    def old(names: Collection[str]) -> list[str]:
        return [old_of.get(name, name) for name in names]

    kept = None if columns is None else {*columns, *old(columns), *new_of}
    with files.open_reader(path, args.source, columns=kept, numbers=old(numbers), text=old(text), **options) as reader:
        names = reader.names
        for name in new_of:
            if name not in names:
                raise missing(names, name)
        twice = [new for new in old_of if new in names and new not in new_of]
        if twice:
            raise DataError(f"--rename: there is a column {twice[0]!r} already")
        yield reader.renamed(new_of) if new_of else reader


def whole_table(args: argparse.Namespace, path: str, laws: Sequence[Law], more: Iterable[str]) -> Any:
    """A whole table in a file, with numbers in the columns of these laws and in some more."""
    import pyarrow as pa

    from jaxlaws.fitting.runs import sized

    found, first_row = [], 1
    with open_reader(args, path, typed=False) as reader:
        numbers = set(more)
        for law in laws:
            law = sized(law, reader.names)
            numbers |= {*used_names(law, reader.names), *law.output_columns}
        for table in reader:
            found.append(reader.parsed(table, numbers, first_row))
            first_row += len(table)
    if not found:
        raise DataError("the table has no rows")
    return pa.concat_tables(found)


def used_names(law: Law, names: Collection[str]) -> list[str]:
    """The columns of inputs among these names; aliases only of those that are not there by their own."""
    return [
        name for v, column in law.columns for name in ((column,) if column in names else v.aliases) if name in names
    ]


def grid(words: Sequence[str], numbers: Sequence[str]) -> Any:
    """A table of all combinations of NAME=VALUE,VALUE,..."""
    import pyarrow as pa

    axes: dict[str, list[Any]] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or not name:
            raise DataError(f"{word!r} is not of the form NAME=VALUE,VALUE,...")
        if name in axes:
            raise DataError(f"{name!r} is given twice")
        try:
            axes[name] = [float(x) for x in text.split(",")] if name in numbers else text.split(",")
        except ValueError:
            raise DataError(f"{word!r}: {name} takes numbers, such as 7e9") from None
    points = zip(*itertools.product(*axes.values()), strict=True)
    return pa.table(dict(zip(axes, map(list, points), strict=True)))


def check_names(names: Iterable[str], known: Collection[str], law: Law) -> None:
    """A DataError for a name in NAME=VALUE that is not known."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            takes = ", ".join(v.name for v in variables(law.inputs))
            hint = f"did you mean {near[0]!r}?" if near else f"{law.name} takes {takes}"
            raise DataError(f"unknown name {name!r}; {hint}")


def output_format(args: argparse.Namespace) -> tuple[str | None, str | None]:
    """The format and compression that the arguments name, if they name one."""
    from jaxlaws import files

    form: str | None = "jsonl" if args.json else args.to
    compression = None
    if form is None and args.output != "-":
        try:
            form, compression = files.format_of(args.output)
        except DataError as error:
            raise DataError(f"{args.output}: {error}") from None
    if form == "parquet" and args.output == "-" and sys.stdout.isatty():
        raise DataError("Parquet is not for a terminal; write it to a file with -o FILE")
    return form, compression


def usual_format(source: str) -> str:
    """The format of standard output: for people, or for a pipe text as it came and Parquet as CSV."""
    return "text" if sys.stdout.isatty() else "jsonl" if source == "jsonl" else "csv"


@contextlib.contextmanager
def attended() -> Iterator[Callable[[int, float | None], None]]:
    """Shows progress on a terminal while the body runs, and ends it at an interrupt.

    Yields a function to call now and then with the rows done and, where it is known, the share of all.
    """
    interrupted = []

    def interrupt(*_: Any) -> None:
        interrupted.append(True)  # the exception may arrive where exceptions are ignored
        raise KeyboardInterrupt

    with contextlib.ExitStack() as stack:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, interrupt))
        show = _progress_bar(stack) if sys.stderr is not None and sys.stderr.isatty() else None

        def watch(rows: int, share: float | None) -> None:
            if interrupted:
                raise KeyboardInterrupt
            if show is not None:
                show(rows, share)

        yield watch


def _progress_bar(stack: contextlib.ExitStack) -> Callable[[int, float | None], None]:
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[rows]:,} rows"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=None, rows=0)
    begun = time.monotonic()

    def show(rows: int, share: float | None) -> None:
        bar.update(task, rows=rows, completed=share or 0, total=None if share is None else 1)
        if time.monotonic() - begun > 0.5 and not bar.live.is_started:  # short work needs no bar
            stack.enter_context(bar)

    return show


def print_json(value: Any) -> None:
    """Print a value as JSON for people and programs."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> None:
    """Print a table for people."""
    from jaxlaws.display import print_table

    print_table(header, rows, markdown=markdown)
