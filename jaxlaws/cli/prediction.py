"""Commands that apply a law to the rows of a table: predict, gradient, evaluate; and example, which makes one."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax
import narwhals as nw
import numpy as np

from jaxlaws import tables
from jaxlaws.arguments import group_ids
from jaxlaws.cli import holdout
from jaxlaws.cli.shared import (
    FORMATS,
    Command,
    attended,
    check_names,
    chosen_law,
    coefs_argument,
    count_of,
    drop_argument,
    file_arguments,
    floats,
    fraction,
    known_group,
    known_law,
    law_argument,
    open_table,
    output_format,
    print_json,
    print_table,
    seed,
    source_arguments,
    used_names,
    usual_format,
    warn,
)
from jaxlaws.evaluation import tabulate
from jaxlaws.law import Law, variables
from jaxlaws.proportions import Normalised
from jaxlaws.ranges import Outside, beyond, ranges_for
from jaxlaws.scores import Tally
from jaxlaws.tables import DataError, NoGroupError

__all__ = ["add_commands"]

TRIES = 1000  # of drawing inputs again; where one in 50 lies in all ranges, that leaves none outside

TABLES = """\
FILE is Parquet (.parquet, .pq), CSV (.csv) or JSON lines (.jsonl, .ndjson, .json), the texts also compressed (.gz,
.zst, ...), a folder saved by Hugging Face datasets (its split train, or else the first), or - for standard input. It
needs a column per input of the law ("jaxlaws show LAW" names them). Or give the inputs right here, as
NAME=VALUE,VALUE,...: all combinations are computed."""


def add_commands(command: Command) -> None:
    """Add the commands to the parser."""
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
        "jaxlaws evaluate parallel runs.csv\njaxlaws evaluate sft runs.csv --group-column model --json\n"
        "jaxlaws evaluate sft held-out.csv --coefs coefs.json\n" + holdout.EXAMPLES,
        "The table holds the inputs and the measured outputs. R2, NMSE and NMAE as in SLDBench: per output over all\n"
        "rows, averaged over outputs. The coefficients are those of the law, or with --holdout or --by those of a fit\n"
        f"to other runs in the table.\n\n{holdout.HOLD_OUT}",
    )
    _table_arguments(sub, grid=False)
    holdout.hold_out_arguments(sub)
    drop_argument(sub)
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command(
        "example",
        _example,
        "make a table of random configurations within the range a law was fitted on",
        "jaxlaws example parallel | jaxlaws predict parallel -\n"
        "jaxlaws example parallel --rows 10000000 -o configurations.parquet\n"
        "jaxlaws example chinchilla --rows 60 --noise 1% --group besiroglu2024 | jaxlaws fit chinchilla -",
        "With --noise the table has the outputs too, as runs would have measured them: those of the law, with random\n"
        "errors. What a fit to it finds can be held against the coefficients that it was made with.",
    )
    law_argument(sub)
    sub.add_argument("--rows", metavar="N", type=count_of("rows"), default=10, help="how many (default 10)")
    sub.add_argument("--seed", metavar="N", type=seed, default=0, help="which random ones (default 0)")
    sub.add_argument("--group", metavar="G", help="group of all rows (default: random ones)")
    about = "also measure the outputs, with errors of this size, such as 1%% or 0.01, relative to the output"
    sub.add_argument("--noise", metavar="X", type=fraction, help=about)
    sub.add_argument("-o", "--output", metavar="OUT", default="-", help="file to write (default: standard output)")
    sub.add_argument("--to", choices=(*FORMATS, "text"), help="format of the output, if not told by its suffix")
    sub.set_defaults(json=False)


def _table_arguments(sub: Any, grid: bool = True) -> None:
    law_argument(sub)
    if grid:
        sub.add_argument("table", metavar="FILE | NAME=VALUE,...", nargs="+", help="the table, or the inputs")
    else:
        sub.add_argument("table", metavar="FILE", nargs=1, help="the table")
    group = sub.add_mutually_exclusive_group()
    group.add_argument("--group", metavar="G", help="group of the law to use for all rows")
    group.add_argument(
        "--group-column", metavar="C", help='column with the group of each row (default "group", where there is one)'
    )
    coefs_argument(sub)
    source_arguments(sub)


def _output_arguments(sub: Any) -> None:
    file_arguments(sub)
    sub.add_argument("--float32", action="store_true", help="compute in float32 (default float64)")
    sub.add_argument("--strict", action="store_true", help="make inputs outside the fitted range an error")
    sub.add_argument(
        "--weights",
        metavar="W,W,...",
        type=floats,
        help="differentiate this sum of the outputs (default: their mean, or each)",
    )


def _predict(args: argparse.Namespace) -> None:
    _transform(args, ("value", "gradient") if args.gradients else ("value",))


def _gradient(args: argparse.Namespace) -> None:
    _transform(args, ("elasticity",) if args.elasticity else ("gradient",))


def _transform(args: argparse.Namespace, verbs: tuple[str, ...]) -> None:
    """Read a table batch by batch, add the columns of the verbs, and write it."""
    import pyarrow as pa

    from jaxlaws import files
    from jaxlaws.json_lines import LINES

    law = chosen_law(args, "--strict" if args.strict else "")
    group = _group(law, args)
    if args.weights is not None and "value" in verbs and len(verbs) == 1:
        raise DataError("--weights are those of the outputs in a derivative; --gradients is missing")
    if args.weights is not None and not law.output_shape:
        raise DataError(f"--weights: {law.name} has one output, and takes none")
    if args.weights is not None and len(args.weights) != len(law.output_columns):
        raise DataError(f"--weights: {law.name} has {len(law.output_columns)} outputs, not {len(args.weights)}")
    form, compression = output_format(args)
    lines = form == "jsonl" or (form is None and not sys.stdout.isatty())  # of JSON, which go to JSON
    dtype = np.float32 if args.float32 else np.float64
    outside, normalised = Outside(law), Normalised()
    beside = None  # columns that need not be read, nor encoded again
    if form == "parquet" and len(args.table) == 1 and not args.rename:
        beside = files.columns_of(args.table[0], args.source)
    only = None if beside is None else [args.group_column or "group"]
    others = 0  # rows of another group than the one that is used for all
    first_row = 1

    def extended() -> Iterator[Any]:
        nonlocal first_row, others
        for table in reader:
            as_numbers = reader.parsed(table, numbers, first_row)
            frame = tables.as_frame(as_numbers)
            rows = tables.read(law, frame, group, dtype=dtype, first_row=first_row, tally=normalised)
            outside.add(rows)
            if args.strict and outside.rows:
                raise DataError(str(outside))
            if args.group is not None and frame.schema.get("group") in (nw.String, nw.Categorical):
                others += int((frame["group"].cast(nw.String) != args.group).sum())
            if LINES in table.column_names:
                table = table.select([LINES])
            elif form in ("parquet", "jsonl"):
                table = as_numbers
            found = tables.results(law, rows, verbs, reader.names, args.weights)
            # pa.array() would load pandas.
            new = [
                pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), rows.count, [None, pa.py_buffer(values)])
                for values in found.values()
            ]
            if beside is not None:
                table = pa.Table.from_arrays(new, list(found))
            else:
                for name, column in zip(found, new, strict=True):
                    table = table.append_column(name, column)
            first_row += rows.count
            yield table

    with (
        contextlib.nullcontext() if beside is None else contextlib.closing(beside),
        _open(law, args, only=only, typed=form in ("parquet", "jsonl"), dates=form == "parquet", lines=lines) as (
            reader,
            numbers,
        ),
        files.open_writer(
            args.output, form or usual_format(reader.format), compression, reader.schema, beside
        ) as writer,
        attended() as watch,
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
        warn(f"{args.group!r} was used for all rows, and {others:,} have another group in column 'group'")
    if normalised.rows:
        warn(normalised)
    if outside.rows:
        warn(outside)


def _evaluate(args: argparse.Namespace) -> None:
    if holdout.asked(args):
        return holdout.evaluate(args)
    law = chosen_law(args)
    group = _group(law, args)
    tally = Tally(law, args.drop_missing)
    first_row = 1
    only = [args.group_column or "group"]
    with _open(law, args, law.output_columns, only=only) as (reader, numbers), attended() as watch:
        for table in reader:
            table = reader.parsed(table, numbers, first_row)
            first_row += tally.add(tables.as_frame(table), group, first_row)
            watch(first_row - 1, reader.fraction(first_row - 1))
        scores = tally.scores()
    tally.left_out.warn()
    if args.json:
        return print_json(dataclasses.asdict(scores))
    rows = [(name, *(f"{x:.6f}" for x in s.values())) for name, s in scores.outputs.items()]
    if len(rows) > 1:
        rows.append(("mean", *(f"{getattr(scores, key):.6f}" for key in ("r2", "nmse", "nmae"))))
    print_table((f"{scores.rows} rows", "R2", "NMSE", "NMAE"), rows)


def _example(args: argparse.Namespace) -> None:
    import pyarrow as pa

    from jaxlaws import files

    law = known_law(args.law)
    unbounded = [v.name for v in variables(law.inputs) if v.range is None and v.total is None]
    if unbounded:
        raise DataError(f"the range that {law.name} was fitted on is not known for {unbounded[0]}")
    if not law.groups:
        raise DataError(f"{law.name} has no group, whose configurations these would be")
    form, compression = output_format(args)
    random = np.random.default_rng(args.seed)
    names = np.array(list(law.groups) if args.group is None else [known_group(law, args.group)])
    with files.open_writer(args.output, form or usual_format("csv"), compression) as writer, attended() as watch:
        for start in range(0, args.rows, 1 << 20):
            count = min(1 << 20, args.rows - start)
            inputs = _drawn(law, random, count)
            ids = random.integers(len(names), size=count, dtype=np.int32)
            ranges = ranges_for(law, None, group_ids(law, names[ids]))
            for tried in itertools.count():
                if not (out := _outside(law, ranges, inputs)).any():  # the range of the group, or that of a ratio
                    break
                if tried == TRIES:
                    raise DataError(f"{law.name}: hardly any inputs in their ranges lie in those of the groups, too")
                again = iter(jax.tree.leaves(_drawn(law, random, int(out.sum()))))
                for values in jax.tree.leaves(inputs):
                    values[out] = next(again)
            columns: dict[str, Any] = {}
            for v in variables(law.inputs):
                values = getattr(inputs, v.name).reshape(count, -1).T
                columns.update(zip(v.column_names(law.sizes), values, strict=True))
            groups = pa.DictionaryArray.from_arrays(ids, names)
            if args.noise is not None:
                chosen = group_ids(law, names[ids])
                (outputs,) = tabulate(law, ("value",), chosen, inputs, count)
                measured = outputs.reshape(count, -1) * np.exp(
                    args.noise * random.normal(size=(count, len(law.output_columns)))
                )
                columns.update(zip(law.output_columns, measured.T, strict=True))
            writer.write(pa.table({"group": groups.cast(pa.string()), **columns}))
            watch(start + count, (start + count) / args.rows)


def _drawn(law: Law, random: np.random.Generator, count: int) -> Any:
    """Random inputs in the range of the law."""
    found = {}
    for v in variables(law.inputs):
        if v.total is not None:
            found[v.name] = random.dirichlet(np.ones(len(v.column_names(law.sizes))), count) * v.total
            continue
        low, high = np.asarray(v.range, np.float64)
        positive = bool(np.all(low > 0))  # what may be negative is a logarithm already
        low, high = np.log((low, high)) if positive else (low, high)
        values = random.uniform(low, high, (count, *np.shape(low)))
        values = np.exp(values) if positive else values
        found[v.name] = values.round() if v.integer else values
    return law.inputs(**found)


def _outside(law: Law, ranges: Any, inputs: Any) -> np.ndarray:
    """Which rows lie outside the ranges; mixtures may, of which few lie in theirs."""
    free = {v.name for v in variables(law.inputs) if v.total is not None}
    masks = [mask for name, mask in beyond(ranges, inputs).items() if name not in free]
    found: np.ndarray = np.any([np.zeros(len(jax.tree.leaves(inputs)[0]), bool), *masks], axis=0)
    return found


def _group(law: Law, args: argparse.Namespace) -> str | None:
    if args.group is not None:
        return known_group(law, args.group)
    column: str | None = args.group_column
    return column


def _check_complete(names: Collection[str], law: Law) -> None:
    """A DataError for an input that NAME=VALUE does not give."""
    for v, column in law.columns:
        if column not in names and not any(alias in names for alias in v.aliases):
            raise DataError(f"no {column} ({v.description}); give {column}=VALUE, too")


@contextlib.contextmanager
def _open(
    law: Law,
    args: argparse.Namespace,
    more: Sequence[str] = (),
    *,
    only: Sequence[str] | None = None,
    **options: Any,
) -> Iterator[tuple[Any, list[str]]]:
    """The table that the arguments name, and its columns of numbers; errors in it begin with its name.

    With `only`, no columns are read but those and the columns of numbers.
    """
    numbers = [*law.input_columns, *(alias for v in variables(law.inputs) for alias in v.aliases), *more]
    name, opened = open_table(
        args,
        args.table,
        numbers,
        columns=None if only is None else [*numbers, *only],
        text=[args.group_column or "group"],
        **options,
    )
    try:
        with opened as reader:
            if name != "inputs":
                numbers = [*used_names(law, reader.names), *more]
            if name == "inputs":
                known = [*numbers, "group", *filter(None, [args.group_column])]
                check_names(reader.names, known, law)
            if name == "inputs" and not more:
                _check_complete(reader.names, law)
            if args.group_column is not None and args.group_column not in reader.names:
                raise tables.missing(reader.names, args.group_column)
            yield reader, numbers
    except NoGroupError:
        lacks = "" if name == "inputs" else ", and the table no column 'group'"
        group = shlex.quote(next(iter(law.groups)))
        raise DataError(
            f"{name}: {law.name} has {len(law.groups)} groups{lacks}: choose one, such as --group {group}"
        ) from None
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
