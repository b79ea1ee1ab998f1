"""The `jaxlaws` command: laws for tables in files, and what is known about them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import narwhals as nw
import numpy as np

import jaxlaws
from jaxlaws import tables
from jaxlaws.catalogue import laws
from jaxlaws.law import Law, UnknownNameError, Var, as_dict, variables
from jaxlaws.scores import Tally
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
    if argv is None:
        _settle()
    status = _run(_parser().parse_args(argv))
    if argv is None:
        # At once: threads of Arrow may still be reading, and abort a process that is being taken down; and taking
        # down what is imported takes longer than many a run.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, AttributeError):
                stream.flush()
        os._exit(status)
    return status


def _settle() -> None:
    """Set what only the command may set, in a process of its own."""
    gc.freeze()  # what is imported is no garbage, and is not looked through again
    folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "jaxlaws")
    settings = {
        "jax_compilation_cache_dir": folder if os.path.isabs(folder) else None,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_logging_level": "CRITICAL",  # what does not fit in the cache, or to the processor, is compiled again
    }
    for name, value in settings.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _run(args: argparse.Namespace) -> int:
    try:
        if sys.stdout is None:
            raise DataError("standard output is closed")
        args.run(args)
        sys.stdout.flush()
    except (DataError, UnknownNameError) as error:
        return _fail(error)
    except BrokenPipeError:  # the reader of the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return _fail(f"{error.filename}: {reason}" if error.filename else reason)
    except KeyboardInterrupt:
        return 130
    return 0


def _fail(message: object) -> int:
    print(f"jaxlaws: {message}", file=sys.stderr)
    return 2


# What the user types.


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxlaws",
        description="Predict the loss of language models with scaling laws.",
        epilog='"jaxlaws COMMAND --help" shows the options of a command, with examples. Compiled functions are kept '
        "for the next run in $XDG_CACHE_HOME/jaxlaws, by default ~/.cache/jaxlaws; JAX_COMPILATION_CACHE_DIR names "
        "another folder, and JAX_ENABLE_COMPILATION_CACHE=false keeps none.",
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
    _table_arguments(sub, grid=False)
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
    sub.add_argument("--seed", metavar="N", type=_seed, default=0, help="which random ones (default 0)")
    sub.add_argument("-o", "--output", metavar="OUT", default="-", help="file to write (default: standard output)")
    sub.add_argument("--to", choices=(*FORMATS, "text"), help="format of the output, if not told by its suffix")
    sub.set_defaults(json=False)
    return parser


def _table_arguments(sub: Any, grid: bool = True) -> None:
    sub.add_argument("law", metavar="LAW")
    if grid:
        sub.add_argument("table", metavar="FILE | NAME=VALUE,...", nargs="+", help="the table, or the inputs")
    else:
        sub.add_argument("table", metavar="FILE", nargs=1, help="the table")
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
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
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
    _print_table(("input", "what", "unit", "fitted on", "floor"), inputs)
    print()
    _print_table(("output", "what", "unit"), [(_names(law, output), output.description, output.unit)])
    print()
    about = [(v.name, v.description, v.unit) for v in variables(law.coefs)]
    if any(v.shape for v in variables(law.coefs)):
        _print_table(("coefficient", "what", "unit"), about)
        for name, coefs in groups.items():
            print(f"\ngroup {name}")
            for field, value in coefs.items():
                start = f"  {field} = "
                text = np.array2string(np.asarray(value), prefix=start, max_line_width=200, floatmode="unique")
                print(start + text)
    elif len(groups) <= 2:
        values = zip(*([repr(value) for value in coefs.values()] for coefs in groups.values()), strict=True)
        rows = [(*row, *own) for row, own in zip(about, values, strict=True)]
        _print_table(("coefficient", "what", "unit", *groups), rows)
    else:
        _print_table(("coefficient", "what", "unit"), about)
        print()
        names = [v.name for v in variables(law.coefs)]
        _print_table(("group", *names), [(name, *map(repr, coefs.values())) for name, coefs in groups.items()])
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

    from jaxlaws import files

    law = laws[args.law]
    group = _group(law, args)
    if args.weights is not None and "value" in verbs and len(verbs) == 1:
        raise DataError("--weights are those of the outputs in a derivative; --gradients is missing")
    if args.weights is not None and not law.output_shape:
        raise DataError(f"--weights: {law.name} has one output, and takes none")
    if args.weights is not None and len(args.weights) != len(law.output_columns):
        raise DataError(f"--weights: {law.name} has {len(law.output_columns)} outputs, not {len(args.weights)}")
    form, compression = _output_format(args)
    dtype = np.float32 if args.float32 else np.float64
    outside = Outside(law)
    others = 0  # rows of another group than the one that is used for all
    first_row = 1

    def extended() -> Iterator[Any]:
        nonlocal first_row, others
        for table in reader:
            as_numbers = files.parsed(table, numbers, first_row) if reader.format == "csv" else table
            frame = tables.as_frame(as_numbers)
            rows = tables.read(law, frame, group, dtype=dtype, first_row=first_row)
            outside.add(rows)
            if args.strict and outside.rows:
                raise DataError(str(outside))
            if args.group is not None and frame.schema.get("group") in (nw.String, nw.Categorical):
                others += int((frame["group"].cast(nw.String) != args.group).sum())
            if form in ("parquet", "jsonl"):
                table = as_numbers
            for name, values in tables.results(law, rows, verbs, frame.columns, args.weights).items():
                # pa.array() would load pandas.
                column = pa.Array.from_buffers(
                    pa.from_numpy_dtype(values.dtype), rows.count, [None, pa.py_buffer(values)]
                )
                table = table.append_column(name, column)
            first_row += rows.count
            yield table

    with (
        _open(law, args, typed=form in ("parquet", "jsonl")) as (reader, numbers),
        files.open_writer(args.output, form or _usual_format(reader.format), compression, reader.schema) as writer,
        _attended() as watch,
        # Each table is written while the next one is read and predicted. Not from a stream: a thread that waits for
        # one cannot be interrupted.
        files.ahead(extended()) if reader.regular else contextlib.nullcontext(extended()) as finished,
    ):
        written = 0
        for table in finished:
            writer.write(table)
            written += len(table)
            watch(written, reader.fraction(written))
        if not written:
            raise DataError("the table has no rows")
    if others:
        _warn(f"{args.group!r} was used for all rows, and {others:,} have another group in column 'group'")
    if outside.rows:
        _warn(outside)


def _warn(message: object) -> None:
    print(f"jaxlaws: warning: {message}", file=sys.stderr)


def _evaluate(args: argparse.Namespace) -> None:
    from jaxlaws import files

    law = laws[args.law]
    group = _group(law, args)
    tally = Tally(law)
    first_row = 1
    only = [args.group_column or "group"]
    with _open(law, args, law.output_columns, only=only) as (reader, numbers), _attended() as watch:
        for table in reader:
            table = files.parsed(table, numbers, first_row) if reader.format == "csv" else table
            first_row += tally.add(tables.as_frame(table), group, first_row)
            watch(first_row - 1, reader.fraction(first_row - 1))
        scores = tally.scores()
    if args.json:
        return _print_json(dataclasses.asdict(scores))
    rows = [(name, *(f"{x:.6f}" for x in s.values())) for name, s in scores.outputs.items()]
    if len(rows) > 1:
        rows.append(("mean", *(f"{getattr(scores, key):.6f}" for key in ("r2", "nmse", "nmae"))))
    _print_table((f"{scores.rows} rows", "R2", "NMSE", "NMAE"), rows)


def _example(args: argparse.Namespace) -> None:
    import pyarrow as pa

    from jaxlaws import files

    law = laws[args.law]
    unbounded = [v.name for v in variables(law.inputs) if v.range is None and v.total is None]
    if unbounded:
        raise DataError(f"the range that {law.name} was fitted on is not known for {unbounded[0]}")
    form, compression = _output_format(args)
    random = np.random.default_rng(args.seed)
    names = np.array(list(law.groups))
    with files.open_writer(args.output, form or _usual_format("csv"), compression) as writer, _attended() as watch:
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
            watch(start + count, (start + count) / args.rows)


# What the commands share.


def _known_group(law: Law, group: str) -> str:
    if group not in law.groups:
        raise UnknownNameError.of(f"group of {law.name}", group, law.groups)
    return group


def _group(law: Law, args: argparse.Namespace) -> str | None:
    if args.group is not None:
        return _known_group(law, args.group)
    column: str | None = args.group_column
    return column


@contextlib.contextmanager
def _open(
    law: Law,
    args: argparse.Namespace,
    more: Sequence[str] = (),
    *,
    only: Sequence[str] | None = None,
    typed: bool = True,
) -> Iterator[tuple[Any, list[str]]]:
    """The table that the arguments name, and its columns of numbers; errors in it begin with its name.

    With `only`, no columns are read but those and the columns of numbers.
    """
    from jaxlaws import files

    numbers = [*law.input_columns, *(alias for v in variables(law.inputs) for alias in v.aliases), *more]
    words = args.table
    if any("=" in word for word in words) and not (len(words) == 1 and os.path.exists(words[0])):
        name = "inputs"
        opened: Any = contextlib.nullcontext(files.Reader.of(_grid(words, numbers)))
    elif len(words) > 1:
        raise DataError(f"one table at a time; {words[1]!r} is a second one")
    else:
        name = "standard input" if words[0] == "-" else words[0]
        opened = files.open_reader(
            words[0],
            args.source,
            columns=None if only is None else [*numbers, *only],
            numbers=numbers,
            text=[args.group_column or "group"],
            typed=typed,
        )
    try:
        with opened as reader:
            if args.group_column is not None and args.group_column not in reader.schema.names:
                raise tables.missing(reader.schema.names, args.group_column)
            yield reader, numbers
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


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


def _output_format(args: argparse.Namespace) -> tuple[str | None, str | None]:
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


def _usual_format(source: str) -> str:
    """The format of standard output: for people, or for a pipe text as it came and Parquet as CSV."""
    return "text" if sys.stdout.isatty() else "jsonl" if source == "jsonl" else "csv"


@contextlib.contextmanager
def _attended() -> Iterator[Callable[[int, float | None], None]]:
    """Shows progress on a terminal while the body runs, and ends it at an interrupt.

    Yields a function to call now and then with the rows done and, where it is known, the share of all.
    """
    interrupted = []

    def interrupt(*_: Any) -> None:
        interrupted.append(True)  # the exception may arrive where exceptions are ignored
        raise KeyboardInterrupt

    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
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


def _print_json(value: Any) -> None:
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """The value with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> None:
    from jaxlaws.display import print_table

    print_table(header, rows, markdown=markdown)
