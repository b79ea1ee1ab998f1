"""Commands that tell what is known about laws: list and show."""

from __future__ import annotations

import argparse
import math
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlaws.catalogue import laws
from jaxlaws.cli.shared import ERRORS, Command, known_group, known_law, law_argument, print_json, print_table, warn
from jaxlaws.law import Law, Source, Var, as_dict, variables

__all__ = ["add_commands"]

DIGITS = 7  # of coefficients, for people


def add_commands(command: Command) -> None:
    """Add the commands to the parser."""
    sub = command(
        "list",
        _list,
        "list the laws, by the question that they answer",
        "jaxlaws list\njaxlaws list --advice\njaxlaws list --json",
    )
    sub.add_argument("--advice", action="store_true", help="tell which law to use when, and what it cannot do")
    style = sub.add_mutually_exclusive_group()
    style.add_argument("--json", action="store_true", help="print JSON")
    style.add_argument("--markdown", action="store_true", help="print Markdown")

    sub = command(
        "show",
        _show,
        "show a law: formula, inputs, coefficients, sources",
        "jaxlaws show parallel\njaxlaws show domain_mixture --group 410M --json",
    )
    law_argument(sub)
    sub.add_argument("--group", metavar="G", help="show the coefficients of this group only")
    sub.add_argument("--json", action="store_true", help="print JSON")


def _list(args: argparse.Namespace) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        known = list(laws.values())
    for each in caught:  # laws of other packages that cannot be had
        warn(each.message)
    if args.json:
        return print_json([{"name": law.name, **_about(law), "groups": len(law.groups)} for law in known])
    asked: dict[str, list[Law]] = {}
    for law in known:
        asked.setdefault(law.question, []).append(law)
    asked = dict(sorted(asked.items(), key=lambda item: -len(item[1])))
    if args.advice:
        for question, answers in asked.items():
            print(f"**{question}**\n" if args.markdown else question)
            for law in answers:
                print(f"* `{law.name}`: {law.advice}" if args.markdown else _indented(f"{law.name}: {law.advice}"))
            print()
        return None
    for question, answers in asked.items():
        header = ["law", "predicts", "inputs", "groups", "R2 held out"]
        rows: list[tuple[str, ...]] = [
            (
                law.name,
                law.title,
                ", ".join(v.name for v in variables(law.inputs)),
                str(len(law.groups) or ""),
                "" if law.source.r2_best is None else f"{law.source.r2_best:.6f}",
            )
            for law in answers
        ]
        if not any(row[-1] for row in rows):
            header, rows = header[:-1], [row[:-1] for row in rows]
        print(f"**{question}**\n" if args.markdown else question)
        print_table(header, rows, markdown=args.markdown)
        print()


def _indented(text: str) -> str:
    """Lines as long as the screen is wide."""
    from jaxlaws.display import screen_width

    width = screen_width()
    return textwrap.fill(text, width, initial_indent="  ", subsequent_indent=4 * " ", break_on_hyphens=False)


def _show(args: argparse.Namespace) -> None:
    from jaxlaws.display import screen_width

    law = known_law(args.law)
    names = list(law.groups) if args.group is None else [known_group(law, args.group)]
    groups = {name: as_dict(law.groups[name]) for name in names}
    if args.json:
        sources = {name: _as_json(law.source_of(name)) for name in names}
        ranges = {name: law.ranges_of(name) for name in names}
        return print_json({"name": law.name, **_about(law), "groups": groups, "ranges": ranges, "sources": sources})
    print(f"{law.name}: {law.title}\n\n{law.output_text} = {law.formula}\n")
    for line in filter(None, (law.question, law.advice)):
        print(textwrap.fill(line, screen_width(), break_long_words=False, break_on_hyphens=False))
    print()
    header = ["input", "what", "unit", "fitted on", "floor"]
    inputs: list[tuple[str, ...]] = [
        (_names(law, v), v.description, v.unit, _range(v.range), "" if v.floor is None else f"{v.floor:g}")
        for v in variables(law.inputs)
    ]
    if not any(row[-1] for row in inputs):
        header, inputs = header[:-1], [row[:-1] for row in inputs]
    print_table(header, inputs)
    print()
    _show_ranges(law, names)
    outputs = [(_names(law, v), v.description, v.unit) for v in variables(law.outputs)]
    print_table(("output", "what", "unit"), outputs)
    print()
    _show_coefs(law, groups)
    print()
    facts = {"objective": ERRORS[law.objective], **_facts(law.source)}
    for key, value in facts.items():
        print(f"{key:9} {value}")
    apart: dict[tuple[Any, ...], list[str]] = {}  # groups of the same source are told together
    for name in names:
        apart.setdefault(tuple(_facts(law.source_of(name)).items()), []).append(name)
    apart.pop(tuple(_facts(law.source).items()), None)
    for source, members in apart.items():
        for key, value in (("group", ", ".join(members)), *source):
            print(f"{key:9} {value}")


def _show_ranges(law: Law, groups: list[str]) -> None:
    """The ranges of groups, where these have some of their own, or of ratios."""
    columns = {name: [_range(law.ranges_of(group).get(name)) for group in groups] for name in law.ranges_of()}
    for name in law.ratios:
        columns[name] = [_range(law.ranges_of(group).get(name)) for group in groups]
    told = {name: texts for name, texts in columns.items() if any(texts) and (name in law.ratios or len({*texts}) > 1)}
    if told:
        print_table(("fitted on", *told), list(zip(groups, *told.values(), strict=True)))
        print()


def _show_coefs(law: Law, groups: dict[str, Any]) -> None:
    from jaxlaws.display import screen_width, table_width

    about = [(v.name, v.description, v.unit, _bounds(v)) for v in variables(law.coefs)]
    header = ("coefficient", "what", "unit", "fitted within")
    errors = {name: {} if (e := law.stderr_of(name)) is None else as_dict(e) for name in groups}
    if any(v.shape for v in variables(law.coefs)):
        print_table(header, about)
        for name, coefs in groups.items():
            print(f"\ngroup {name}")
            for field, value in coefs.items():
                _show_array(f"  {field} = ", value, _digits)
                if errors[name]:
                    _show_array(f"  {field} ± ", errors[name][field], _error)
    else:
        columns: dict[str, list[str]] = {}
        for name, coefs in groups.items():
            columns[name] = list(map(_digits, coefs.values()))
            if errors[name]:
                columns[f"{name} ±"] = list(map(_error, errors[name].values()))
        beside = [(*row, *(column[i] for column in columns.values())) for i, row in enumerate(about)]
        if len(groups) <= 2 and table_width((*header, *columns), beside) <= screen_width():
            print_table((*header, *columns), beside)
        else:
            rows = [("±" if name not in groups else name, *column) for name, column in columns.items()]
            print_table(header, about)
            print()
            print_table(("group", *(v.name for v in variables(law.coefs))), rows)
    if any(float(_digits(x)) != x for coefs in groups.values() for value in coefs.values() for x in np.ravel(value)):
        print(f"\n{DIGITS} digits; all of them: --json, or jl.laws[{law.name!r}].groups")


def _show_array(start: str, value: Any, text: Callable[[float], str]) -> None:
    """A coefficient, on as many lines as it takes."""
    from jaxlaws.display import screen_width

    form: Any = {"float_kind": text}
    array, width = np.asarray(value, np.float64), screen_width()
    print(start + np.array2string(array, prefix=start, max_line_width=width, formatter=form))


def _digits(value: float) -> str:
    """A coefficient for people."""
    return f"{value:.{DIGITS}g}"


def _error(value: float) -> str:
    """A standard error for people."""
    return f"{value:g}"


def _facts(source: Source) -> dict[str, Any]:
    """What is known of a source, in words."""
    found = {"source": source.reference, **vars(source)}
    order = ("source", "evidence", "task", "agent", "model", "r2_best", "r2_mean", "r2_min", "runs")
    return {key: found[key] for key in order if found[key] not in ("", None)}


def _as_json(source: Source) -> dict[str, Any]:
    return {**vars(source), "stderr": None if source.stderr is None else as_dict(source.stderr)}


def _bounds(v: Var) -> str:
    """Between which values a fit keeps a coefficient."""
    low, high = v.bounds
    if math.isinf(low) and math.isinf(high):
        return ""
    return f">= {low:g}" if math.isinf(high) else f"<= {high:g}" if math.isinf(low) else f"{low:g} to {high:g}"


def _names(law: Law, v: Var) -> str:
    """How a table may call an input or an output."""
    columns = v.column_names(law.sizes)
    if not v.shape:
        return ", ".join((v.name, *v.aliases))
    return f"{v.name} ({columns[0]} to {columns[-1]})" if law.groups else f"{v.name} ({columns[0]}, ...)"  # any number


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
        "objective": law.objective,
        "question": law.question,
        "advice": law.advice,
        "source": _as_json(law.source),
    }


def _range(ends: Any) -> str:
    if ends is None:
        return ""
    low, high = (np.ravel(end) for end in ends)
    return "; ".join(f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True))
