"""What the commands share that search: problems in, answers out."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import math
import re
import shlex
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlaws import tables
from jaxlaws.cli.shared import (
    PUBLISHED,
    NotFoundError,
    check_names,
    coefs_argument,
    file_arguments,
    floats,
    known_group,
    law_argument,
    level,
    open_table,
    output_format,
    print_table,
    source_arguments,
    usual_format,
    warn,
)
from jaxlaws.law import Law, UnknownNameError, Var, variables
from jaxlaws.ranges import RangeWarning
from jaxlaws.tables import DataError
from jaxlaws.text import printable

__all__ = [
    "Axis",
    "Problems",
    "Spread",
    "certainty",
    "check_answers",
    "columns_of",
    "draws_of",
    "entries",
    "extrapolated_columns",
    "many",
    "number_list",
    "print_columns",
    "result_names",
    "search_arguments",
    "short",
    "show_all",
    "write",
]

SHOWN_ROWS = 50  # of a table for people


def search_arguments(sub: Any) -> None:
    """The arguments of every search."""
    law_argument(sub)
    sub.add_argument("problems", metavar="FILE | NAME=VALUE,...", nargs="*", help="several problems")
    source_arguments(sub)
    sub.add_argument(
        "--group",
        metavar="G",
        action="append",
        dest="groups",
        help="group of the law; may be given several times (default: all)",
    )
    coefs_argument(sub)
    about = (
        'also search with each of the draws of coefficients in this file, which "jaxlaws fit --draws" wrote, or with '
        f'"{PUBLISHED}" with draws of the errors that were published, and say '
    )
    sub.add_argument("--draws", metavar="DRAWS", help=f"{about}between which values the answers lie")
    about = "how many of the answers lie there (default 90%%)"
    sub.add_argument("--level", metavar="P", type=level, default=0.9, help=about)
    sub.add_argument("--in-range", action="store_true", help="search only the range that the law was fitted on")
    file_arguments(sub)


# What the user types.


def number_list(text: str) -> list[float]:
    """Numbers that are not NaN."""
    found = floats(text)
    if any(map(math.isnan, found)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like 0.5,1")
    return found


def entries(text: str) -> list[float] | dict[str, float]:
    """One number for all or one for each, or some by name."""
    if "=" not in text:
        return number_list(text)
    found: dict[str, float] = {}
    for word in text.split(","):
        name, _, number = map(str.strip, word.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if math.isnan(value) or name in found:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list like 3=0.4,5=0.1")
        found[name] = value
    return found


class Axis:
    """The elements of a vector, such as the domains, as the user calls them."""

    def __init__(self, law: Law, name: str, columns: Sequence[str]):
        self.name, self.columns, self.size = name, tuple(columns), len(columns)
        self._law = law

    def vector(self, option: str, given: Any, default: float) -> np.ndarray:
        """The value of an option for each element; those not named have the default."""
        if isinstance(given, Mapping):
            found = np.full(self.size, default)
            for name, value in given.items():
                found[self.position(option, name)] = value
            return found
        if len(given) not in (1, self.size):
            hint = "; give one number for all, one for each, or some by number, as 3=0.4"
            raise DataError(f"--{option}: {self._law.name} has {self.size} {self.name}s, not {len(given)}{hint}")
        return np.broadcast_to(np.asarray(given, np.float64), self.size)

    def position(self, option: str, name: str) -> int:
        """The index of an element that is called by its number from 1, or by its column."""
        if name in self.columns:
            return self.columns.index(name)
        if name.isdecimal() and 1 <= int(name) <= self.size:
            return int(name) - 1
        raise DataError(f"--{option}: no {self.name} {name!r}; {self._law.name} has {self.name}s 1 to {self.size}")

    def numbered(self, prefix: str) -> list[str]:
        """Columns with a value for each element."""
        return [f"{prefix}_{i}" for i in range(1, self.size + 1)]


# Problems.


class Problems:
    """The problems of a run: all combinations of groups, rows that the user gives, and values of options.

    Attributes:
        columns: What is given per problem, each a list with a value for each problem.
        names: What to call each problem: what sets it apart from the others.
        varying: The columns that are not the same for all problems.
        heading: The law, and the columns that are.
    """

    def __init__(self, law: Law, args: argparse.Namespace, numbers: Sequence[str], options: Sequence[str]):
        rows, source = _rows(law, args, numbers)
        axes = {name: getattr(args, name) for name in options if getattr(args, name) is not None}
        if twice := [name for name in (*axes, *(["group"] if args.groups else [])) if name in rows[0]]:
            raise DataError(f"{source}: {twice[0]!r} is given here and by --{twice[0]}; leave one out")
        if not law.groups:
            raise DataError(f"{law.name} has no group; give one with --coefs")
        groups = [None] if "group" in rows[0] else [known_group(law, group) for group in args.groups or law.groups]
        points, apart = [], []
        for group, (i, row), values in itertools.product(groups, enumerate(rows, 1), itertools.product(*axes.values())):
            own = dict(zip(axes, values, strict=True))
            points.append({"group": group, **row, **own})
            apart.append({"group": group, **(row if source == "inputs" else {"row": i}), **own})
        self.columns = {name: [point[name] for point in points] for name in points[0]}
        for i, group in enumerate(self.columns["group"]):
            if group not in law.groups:
                error = UnknownNameError.of(f"group of {law.name}", group, law.groups)
                raise DataError(f"{source}: column 'group', row {i + 1}: {error}")
        varying = [name for name in apart[0] if len({point[name] for point in apart}) > 1]
        self.varying = [name for name in self.columns if len({str(value) for value in self.columns[name]}) > 1]
        same = [f"{name} {short(values[0])}" for name, values in self.columns.items() if name not in self.varying]
        self.heading = printable(", ".join([law.name, *same]))
        self.names = [printable(", ".join(f"{name} {short(point[name])}" for name in varying)) for point in apart]

    def __len__(self) -> int:
        return len(self.names)

    def has(self, name: str) -> bool:
        """Whether there is a column of this name, or columns of its elements."""
        return any(re.fullmatch(rf"{name}(_\d+)?", column) for column in self.columns)

    def inputs(self, law: Law, searched: Sequence[Var]) -> dict[str, np.ndarray]:
        """The inputs that are given, checked."""
        found = {}
        for v in variables(law.inputs):
            names = [name for name in (v.name, *v.aliases) if name in self.columns]
            if len(names) > 1:
                raise DataError(f"{names[0]!r} and {names[1]!r} are the same input of {law.name}; leave one out")
            if names and v not in searched:
                values = np.array(self.columns[names[0]], np.float64)
                found[v.name] = np.repeat(values[:, None], law.sizes[v.shape[0]], axis=1) if v.shape else values
                if v.floor is None and not (values > v.above).all():
                    raise DataError(f"{names[0]} must be greater than {v.above:g}")
            elif v not in searched:
                raise DataError(f"{law.name} needs {v.name}, too ({v.description}): give {v.name}=VALUE")
        return found

    def vector(self, option: str, base: np.ndarray, axis: Axis) -> np.ndarray:
        """An option for each element of an axis; for each problem, if there are columns of its elements."""
        own = [name for name in axis.numbered(option) if name in self.columns]
        if not own:
            return base
        values = np.tile(base, (len(self), 1))
        for name in own:
            values[:, axis.numbered(option).index(name)] = self.columns[name]
        return values

    def in_words(self, error: Exception) -> str:
        """An error in one line, which has a name in place of the index of a problem."""
        text = " ".join(str(error).split())
        place = re.search(r" in problem \((\d+),\)", text)
        if place is None:
            return text
        name = self.names[int(place[1])]
        return text.replace(place[0], f" for {name}" if name else "")


def _rows(law: Law, args: argparse.Namespace, numbers: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """The rows that the user gives, and where: a file, or "inputs" on the command line."""
    words = args.problems
    if not words:
        if args.rename:
            raise DataError("--rename is for the columns of a file, and there is none")
        return [{}], "inputs"
    source, opened = open_table(args, words, numbers, text=["group"])
    rows: list[dict[str, Any]] = []
    try:
        with opened as reader:
            for table in reader:
                table = reader.parsed(table, numbers, len(rows) + 1)
                frame = tables.as_frame(table)
                columns = {
                    name: tables.numbers(frame, name, len(rows) + 1).tolist()
                    if name in numbers
                    else frame[name].to_list()
                    for name in frame.columns
                }
                rows += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if not rows:
            raise DataError("the table has no rows")
        if source == "inputs":
            check_names(rows[0], (*numbers, "group"), law)
    except DataError as error:
        raise DataError(f"{source}: {error}") from None
    return rows, source


def short(value: Any) -> str:
    """A value for people."""
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


# Answers.


def columns_of(found: Any, names: Mapping[str, Sequence[str]], unused: Sequence[str]) -> dict[str, list[Any]]:
    """The fields of an answer as columns: a vector has one per element."""
    columns: dict[str, list[Any]] = {}
    for v in variables(type(found)):
        if v.name in unused:
            continue
        values = np.asarray(getattr(found, v.name))
        if not v.shape:
            columns[v.name] = values.tolist()
            continue
        own = names.get(v.name) or [f"{v.name}_{i}" for i in range(1, values.shape[-1] + 1)]
        columns.update(zip(own, values.T.tolist(), strict=True))
    return columns


def extrapolated_columns(outside: Any) -> dict[str, np.ndarray]:
    """Which inputs of answers lie outside the range of the runs, as columns; of a vector, whether any element does."""
    own = {v.name: tuple(range(-len(v.shape), 0)) for v in variables(type(outside))}
    return {f"extrapolated_{name}": getattr(outside, name).any(axis=axes) for name, axes in own.items()}


def result_names(law: Law, results: Collection[str]) -> dict[str, str]:
    """The columns of results: `search_steps` for the steps of a search, where the law has an input called steps.

    Results that start with `inputs_` are values of inputs, whose columns do without.
    """
    of_inputs = {name: name.removeprefix("inputs_") for name in results if name.startswith("inputs_")}
    taken = {*of_inputs.values(), *(name for v in variables(law.inputs) for name in (v.name, *v.aliases))}
    others = {name: f"search_{name}" if name in taken else name for name in results}
    return others | of_inputs


def write(
    args: argparse.Namespace, given: Mapping[str, Any], found: Mapping[str, Any], show: Callable[[], None]
) -> None:
    """Write the answers, or show them to people."""
    import pyarrow as pa

    from jaxlaws import files

    if clash := [name for name in found if name in given]:
        raise DataError(f"there is a column {clash[0]!r} already; rename or drop it")
    form, compression = output_format(args)
    form = form or usual_format("csv")
    if form != "text":
        with files.open_writer(args.output, form, compression) as writer:
            writer.write(pa.table({**given, **found}))
    elif args.output == "-":
        show()
    else:
        with files.whole_file(args.output) as file, contextlib.redirect_stdout(io.StringIO()) as text:
            show()
            file.write(text.getvalue().encode())


def check_answers(
    problems: Problems, feasible: np.ndarray, converged: np.ndarray, steps: np.ndarray, none: Callable[[int], str]
) -> None:
    """A NotFoundError if problems have no answer; `none` says of a problem why there is none."""
    bad = np.flatnonzero(~(feasible & converged))
    if not bad.size:
        return
    texts = []
    for i in bad[:5]:
        reason = f"the search did not end at the best in {steps[i]} steps" if feasible[i] else none(i)
        texts.append(f"{problems.names[i]}: {reason}" if problems.names[i] else reason)
    more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
    count = f"{len(bad)} of {len(problems)} without an answer: " if len(problems) > 1 else ""
    raise NotFoundError(count + "; ".join(texts) + more)


class Spread:
    """How far the answers of a search are spread, where there is one per draw of the coefficients.

    Its functions take values [draw, problem, ...]. What has no answer does not count.
    """

    def __init__(self, level: float, found: Any):
        self.level = level
        self._good = np.asarray(found.feasible & found.converged)

    @property
    def answered(self) -> np.ndarray:
        """The share of the draws that have an answer, per problem."""
        share: np.ndarray = self._good.mean(axis=0)
        return share

    def ends(self, values: Any) -> tuple[np.ndarray, np.ndarray]:
        """Between which values the answers lie."""
        tail = (1 - self.level) / 2
        known = np.where(self._mask(values), values, np.nan)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # no answer at all gives NaN
            low, high = np.nanquantile(known, [tail, 1 - tail], axis=0)
        return low, high

    def share(self, holds: Any) -> np.ndarray:
        """In which share of the answers something holds."""
        good = self._mask(holds)
        share: np.ndarray = (good & holds).sum(axis=0) / np.maximum(good.sum(axis=0), 1)
        return share

    def texts(self, values: Any, form: Callable[[float], str]) -> list[str]:
        """The ends of the first problem for people."""
        return [f"{form(low)} to {form(high)}" for low, high in zip(*np.atleast_1d(*self._first(values)), strict=True)]

    def _first(self, values: Any) -> tuple[np.ndarray, np.ndarray]:
        low, high = self.ends(values)
        return low[0], high[0]

    def _mask(self, values: Any) -> np.ndarray:
        shape = (*self._good.shape, *[1] * (np.ndim(values) - self._good.ndim))
        return np.broadcast_to(self._good.reshape(shape), np.shape(values))


def _published(law: Law) -> Any:
    from jaxlaws.fitting.bootstrap import published_draws

    try:
        return published_draws(law)
    except ValueError as error:
        raise DataError(str(error)) from None


@contextlib.contextmanager
def many() -> Iterator[None]:
    """A search with draws of coefficients, of whose answers nothing is said one by one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RangeWarning)
        yield


def draws_of(args: argparse.Namespace, law: Law, groups: Sequence[str]) -> Any:
    """The draws of coefficients that the arguments name, for the group of each problem, [draw, problem, ...]."""
    from jaxlaws.fitting.storage import read_draws

    draws = _published(law) if args.draws == PUBLISHED else read_draws(args.draws, law)
    for name in groups:
        if name not in draws.coefs and args.draws == PUBLISHED:
            own = list(draws.coefs)
            hint = f"add --group {shlex.quote(own[0])}" if len(own) == 1 else "choose some of them with --group"
            raise DataError(f"only {', '.join(own)} {'has' if len(own) == 1 else 'have'} published errors: {hint}")
        if name not in draws.coefs:
            raise DataError(f"{args.draws}: {UnknownNameError.of('group', name, draws.coefs)}")
    for name in dict.fromkeys(groups):
        for flag in draws.flags.get(name, ()):
            warn(f"{args.draws}: group {name}: {flag}")
    fields = {
        v.name: np.stack([getattr(draws.coefs[name], v.name) for name in groups], axis=1) for v in variables(law.coefs)
    }
    return law.coefs(**fields)


def show_all(
    problems: Problems, found: Mapping[str, Sequence[str]], feasible: np.ndarray, converged: np.ndarray
) -> None:
    """Print a table for people with a row per problem."""
    cells = {name: list(map(short, problems.columns[name])) for name in problems.varying}
    for name, texts in found.items():
        cells[name] = [text if ok else "" for text, ok in zip(texts, feasible, strict=True)]
    if not (feasible & converged).all():
        ends = zip(feasible, converged, strict=True)
        cells["answer"] = ["none" if not ok else "" if ended else "not the best" for ok, ended in ends]
    print(problems.heading)
    print_columns({name: texts[:SHOWN_ROWS] for name, texts in cells.items()})
    if len(problems) > SHOWN_ROWS:
        print(f"... and {len(problems) - SHOWN_ROWS:,} more rows; -o FILE keeps them all")


def print_columns(columns: Mapping[str, Sequence[str]]) -> None:
    """Print a table for people that is given by columns."""
    print_table(list(columns), list(zip(*columns.values(), strict=True)))


def certainty(gap: np.ndarray, what: str, better: str = "better", unit: str = "") -> str:
    """What is known of how far from the best answers are."""
    if not np.isfinite(gap).all():
        return f"whether another {what} is {better} is not known"
    return f"no {what} within the bounds is {better} by more than {_rounded_up(np.max(gap)):g}{unit}"


def _rounded_up(x: float) -> float:
    """One digit of a bound, which stays one; below 1e-12 there is nothing but rounding."""
    unit = 10.0 ** math.floor(math.log10(max(x, 1e-12)))
    return max(math.ceil(x / unit), 1) * unit
