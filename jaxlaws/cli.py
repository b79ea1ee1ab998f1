"""The `jaxlaws` command: laws for tables in files, and what is known about them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

import jaxlaws
from jaxlaws import tables
from jaxlaws.catalogue import laws
from jaxlaws.law import Law, UnknownNameError, Var, as_dict, variables
from jaxlaws.scores import evaluate
from jaxlaws.tables import DataError, Outside

__all__ = ["main"]

FORMATS = ("parquet", "csv", "jsonl")

TABLES = """\
FILE is Parquet (.parquet, .pq), CSV (.csv) or JSON lines (.jsonl, .ndjson, .json), the texts also compressed (.gz,
.zst, ...), or - for standard input. It needs a column per input of the law ("jaxlaws show LAW" names them). Or give
the inputs right here, as NAME=VALUE,VALUE,...: all combinations are computed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments; by default those of the process.

    Returns:
        The exit status: 0, or 2 for bad input.
    """
    args = _parser().parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except DataError as error:
        return _fail(f"{_name(args.table[0])}: {error}" if "table" in args else error)
    except UnknownNameError as error:
        return _fail(error)
    except BrokenPipeError:  # the reader of the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return _fail(f"{_name(error.filename)}: {reason}" if error.filename else reason)
    except KeyboardInterrupt:
        return 130
    return 0


def _fail(message: object) -> int:
    print(f"jaxlaws: {message}", file=sys.stderr)
    return 2


def _name(path: object) -> str:
    return "standard input" if path == "-" else str(path)


# What the user types.


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxlaws",
        description="Predict the loss of language models with scaling laws.",
        epilog='"jaxlaws COMMAND --help" shows the options of a command, with examples.',
    )
    parser.add_argument("--version", action="version", version=f"jaxlaws {jaxlaws.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[Any], None], summary: str, examples: str, about: str = "") -> Any:
        sub = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.\n\n{about}".rstrip(),
            epilog="examples:\n" + "".join(f"  {line}\n" for line in examples.splitlines()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    sub = command("list", _list, "list the laws", "jaxlaws list\njaxlaws list --json")
    style = sub.add_mutually_exclusive_group()
    style.add_argument("--json", action="store_true", help="print JSON")
    style.add_argument("--markdown", action="store_true", help="print a Markdown table")

    sub = command(
        "show",
        _show,
        "show a law: formula, inputs, coefficients, source",
        "jaxlaws show parallel\njaxlaws show domain_mixture --group 410M --json",
    )
    sub.add_argument("law", metavar="LAW")
    sub.add_argument("--group", metavar="G", help="show the coefficients of this group only")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command(
        "predict",
        _predict,
        "predict the outputs of a law for a table of configurations",
        "jaxlaws predict parallel num_params=1e9,2e9,4e9 parallel_size=1,2,4,8 --group pile\n"
        "jaxlaws predict parallel runs.parquet -o predicted.parquet\n"
        "jaxlaws predict sft runs.csv --group \"('gpt2', 'flan')\" --gradients\n"
        "zcat runs.csv.gz | jaxlaws predict moe - --json | head",
        TABLES,
    )
    _table_arguments(sub)
    _output_arguments(sub)
    sub.add_argument("--gradients", action="store_true", help="also write the derivatives by each input")

    sub = command(
        "gradient",
        _gradient,
        "differentiate a law by its inputs, for a table of configurations",
        "jaxlaws gradient parallel runs.parquet -o gradients.parquet\n"
        "jaxlaws gradient moe dense_parameter_count=1e8 num_experts=1,8,64 --elasticity",
        TABLES,
    )
    _table_arguments(sub)
    _output_arguments(sub)
    sub.add_argument("--elasticity", action="store_true", help="write percent of output per percent of input instead")

    sub = command(
        "evaluate",
        _evaluate,
        "score a law on a table of measured runs",
        "jaxlaws evaluate parallel runs.csv\njaxlaws evaluate sft runs.csv --group-column model --json",
        "The table holds the inputs and the measured outputs. R2, NMSE and NMAE as in SLDBench: per output over all\n"
        "rows, averaged over outputs.",
    )
    _table_arguments(sub)
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command(
        "example",
        _example,
        "make a table of random configurations within the range a law was fitted on",
        "jaxlaws example parallel | jaxlaws predict parallel -\n"
        "jaxlaws example parallel --rows 10000000 -o configurations.parquet",
    )
    sub.add_argument("law", metavar="LAW")
    sub.add_argument("--rows", metavar="N", type=_count, default=10, help="how many (default 10)")
    sub.add_argument("--seed", metavar="N", type=int, default=0, help="which random ones (default 0)")
    sub.add_argument("-o", "--output", metavar="OUT", default="-", help="file to write (default: standard output)")
    sub.add_argument("--to", choices=(*FORMATS, "text"), help="format of the output, if not told by its suffix")
    sub.set_defaults(json=False)
    return parser


def _table_arguments(sub: Any) -> None:
    sub.add_argument("law", metavar="LAW")
    sub.add_argument("table", metavar="FILE", nargs="+", help="the table, or NAME=VALUE,... per input")
    group = sub.add_mutually_exclusive_group()
    group.add_argument("--group", metavar="G", help="group of the law to use for all rows")
    group.add_argument(
        "--group-column", metavar="C", help='column with the group of each row (default "group", where there is one)'
    )
    sub.add_argument("--from", dest="source", choices=FORMATS, help="format of FILE, if not told by its suffix")


def _output_arguments(sub: Any) -> None:
    sub.add_argument("-o", "--output", metavar="OUT", default="-", help="file to write (default: standard output)")
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--to", choices=(*FORMATS, "text"), help="format of the output, if not told by its suffix")
    form.add_argument("--json", action="store_true", help="the same as --to jsonl")
    sub.add_argument("--float32", action="store_true", help="compute in float32 (default float64)")
    sub.add_argument("--strict", action="store_true", help="make inputs outside the fitted range an error")
    sub.add_argument(
        "--weights", metavar="W,W,...", type=_floats, help="differentiate this sum of the outputs (default: their mean)"
    )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows")
    return int(text)


def _floats(text: str) -> list[float]:
    try:
        return [float(x) for x in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like 0.5,1") from None


# The commands.


def _list(args: argparse.Namespace) -> None:
    if args.json:
        return _print_json([{"name": law.name, **_about(law), "groups": len(law.groups)} for law in laws.values()])
    rows = [
        (
            law.name,
            law.title,
            ", ".join(v.name for v in variables(law.inputs)),
            str(len(law.groups)),
            "" if law.source.r2_best is None else f"{law.source.r2_best:.6f}",
        )
        for law in laws.values()
    ]
    _print_table(("law", "predicts", "inputs", "groups", "R2 held out"), rows, markdown=args.markdown)


def _show(args: argparse.Namespace) -> None:
    law = laws[args.law]
    names = list(law.groups) if args.group is None else [_known_group(law, args.group)]
    groups = {name: as_dict(law.groups[name]) for name in names}
    if args.json:
        return _print_json({"name": law.name, **_about(law), "groups": groups})
    (output,) = variables(law.outputs)
    print(f"{law.name}: {law.title}\n\n{output.name} = {law.formula}\n")
    inputs = [
        (
            _names(law, v),
            v.description,
            v.unit,
            _range(v.range),
            "" if v.floor is None else f"{v.floor:g}",
        )
        for v in variables(law.inputs)
    ]
    _print_table(("input", "what", "unit", "fitted on", "taken at least as"), inputs)
    print()
    _print_table(("output", "what", "unit"), [(_names(law, output), output.description, output.unit)])
    print()
    _print_table(("coefficient", "what", "unit"), [(v.name, v.description, v.unit) for v in variables(law.coefs)])
    print()
    if any(v.shape for v in variables(law.coefs)):
        for name, coefs in groups.items():
            print(f"group {name}")
            for field, value in coefs.items():
                start = f"  {field} = "
                print(start + np.array2string(np.asarray(value), prefix=start, max_line_width=200, floatmode="unique"))
            print()
    else:
        names = [v.name for v in variables(law.coefs)]
        _print_table(("group", *names), [(name, *map(str, coefs.values())) for name, coefs in groups.items()])
        print()
    for key, value in dataclasses.asdict(law.source).items():
        if value not in ("", None):
            print(f"{key:9} {value}")


def _names(law: Law, v: Var) -> str:
    """How a table may call an input or an output."""
    columns = v.column_names(law.sizes)
    return f"{v.name} ({columns[0]} to {columns[-1]})" if v.shape else ", ".join((v.name, *v.aliases))


def _about(law: Law) -> dict[str, Any]:
    def about(cls: Any, *keep: str) -> list[dict[str, Any]]:
        return [
            {
                **{key: getattr(v, key) for key in ("name", "description", "unit", *keep)},
                **({"columns": v.column_names(law.sizes)} if v.columns else {}),
            }
            for v in variables(cls)
        ]

    return {
        "title": law.title,
        "formula": law.formula,
        "inputs": about(law.inputs, "range", "aliases", "floor", "integer"),
        "outputs": about(law.outputs),
        "coefficients": about(law.coefs, "shared"),
        "source": dataclasses.asdict(law.source),
    }


def _range(ends: Any) -> str:
    if ends is None:
        return ""
    low, high = (np.ravel(end) for end in ends)
    return "; ".join(f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True))


def _predict(args: argparse.Namespace) -> None:
    _transform(args, ("value", "gradient") if args.gradients else ("value",))


def _gradient(args: argparse.Namespace) -> None:
    _transform(args, ("elasticity",) if args.elasticity else ("gradient",))


def _transform(args: argparse.Namespace, verbs: tuple[str, ...]) -> None:
    """Read a table batch by batch, add the columns of the verbs, and write it."""
    import pyarrow as pa

    law = laws[args.law]
    group = _group(law, args)
    if args.weights is not None and len(args.weights) != len(law.output_columns):
        raise DataError(f"{law.name} has {len(law.output_columns)} outputs, and there are {len(args.weights)} weights")
    dtype = np.float32 if args.float32 else np.float64
    outside = Outside(law)
    first_row = 1
    with _open(law, args) as reader, _writer(args, reader.format) as writer, _progress(reader):
        for table in reader:
            frame = tables.as_frame(table)
            rows = tables.read(law, frame, group, dtype=dtype, first_row=first_row)
            outside.add(rows)
            if args.strict and outside.rows:
                raise DataError(str(outside))
            for name, values in tables.results(law, rows, verbs, frame.columns, args.weights).items():
                table = table.append_column(name, pa.array(values))
            writer.write(table)
            first_row += rows.count
        if first_row == 1:
            raise DataError("the table has no rows")
    if outside.rows:
        print(f"jaxlaws: warning: {outside}", file=sys.stderr)


def _evaluate(args: argparse.Namespace) -> None:
    import pyarrow as pa

    law = laws[args.law]
    group = _group(law, args)
    with _open(law, args, law.output_columns) as reader:
        table = pa.concat_tables([reader.schema.empty_table(), *reader])
    scores = evaluate(law, group, table)
    if args.json:
        return _print_json(dataclasses.asdict(scores))
    rows = (
        [("all", *(f"{getattr(scores, key):.6f}" for key in ("r2", "nmse", "nmae")))] if len(scores.outputs) > 1 else []
    )
    rows = [(name, *(f"{x:.6f}" for x in s.values())) for name, s in scores.outputs.items()] + rows
    _print_table((f"{scores.rows} rows", "R2", "NMSE", "NMAE"), rows)


def _example(args: argparse.Namespace) -> None:
    import pyarrow as pa

    law = laws[args.law]
    random = np.random.default_rng(args.seed)
    names = np.array(list(law.groups))
    with _writer(args, "csv") as writer:
        for start in range(0, args.rows, 1 << 20):
            count = min(1 << 20, args.rows - start)
            columns: dict[str, Any] = {}
            for v in variables(law.inputs):
                if v.total is not None:
                    values = random.dirichlet(np.ones(len(v.column_names(law.sizes))), count) * v.total
                else:
                    low, high = np.log(np.asarray(v.range, np.float64))
                    values = np.exp(random.uniform(low, high, (count, *np.shape(low))))
                    values = values.round() if v.integer else values
                columns.update(zip(v.column_names(law.sizes), values.reshape(count, -1).T, strict=True))
            groups = pa.DictionaryArray.from_arrays(random.integers(len(names), size=count, dtype=np.int32), names)
            writer.write(pa.table({"group": groups.cast(pa.string()), **columns}))


# What the commands share.


def _known_group(law: Law, group: str) -> str:
    if group not in law.groups:
        raise UnknownNameError(f"group of {law.name}", group, law.groups)
    return group


def _group(law: Law, args: argparse.Namespace) -> str | None:
    if args.group is not None:
        return _known_group(law, args.group)
    column: str | None = args.group_column
    return column


@contextlib.contextmanager
def _open(law: Law, args: argparse.Namespace, more: Sequence[str] = ()) -> Iterator[Any]:
    """The table that the arguments name, and which may hold more columns of numbers than the inputs."""
    from jaxlaws import files

    numbers = [*law.input_columns, *(alias for v in variables(law.inputs) for alias in v.aliases), *more]
    if any("=" in word for word in args.table):
        grid = _grid(args.table, numbers)
        args.table = ["inputs"]
        opened: Any = contextlib.nullcontext(files.Reader.of(grid))
    elif len(args.table) > 1:
        raise DataError(f"one table at a time; {args.table[1]!r} is a second one")
    else:
        text = [args.group_column or "group"]
        opened = files.open_reader(args.table[0], args.source, numbers=numbers, text=text)
    with opened as reader:
        if args.group_column is not None and args.group_column not in reader.schema.names:
            raise tables.missing(reader.schema.names, args.group_column)
        yield reader


def _grid(words: Sequence[str], numbers: Sequence[str]) -> Any:
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
            raise DataError(f"{word!r}: {name} takes numbers") from None
    points = zip(*itertools.product(*axes.values()), strict=True)
    return pa.table(dict(zip(axes, map(list, points), strict=True)))


def _writer(args: argparse.Namespace, source: str) -> Any:
    from jaxlaws import files

    compression = None
    form = "jsonl" if args.json else args.to
    if form is None and args.output != "-":
        form, compression = files.format_of(args.output)
    if form is None:  # for the screen, or for a pipe: text as it came, and Parquet as CSV
        form = "text" if sys.stdout.isatty() else "jsonl" if source == "jsonl" else "csv"
    return files.open_writer(args.output, form, compression)


@contextlib.contextmanager
def _progress(reader: Any) -> Iterator[None]:
    """A progress bar on standard error while the body runs, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[rows]:,} rows"),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rows=0)
        reader.watch = lambda rows, share: bar.update(
            task, rows=rows, completed=share or 0, total=None if share is None else 1
        )
        yield


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> None:
    from jaxlaws.display import print_table

    print_table(header, rows, markdown=markdown)
