"""Commands that tell what is known about laws: list and show."""

from __future__ import annotations

import argparse
import dataclasses
import math
from typing import Any

import numpy as np

from jaxlaws.catalogue import laws
from jaxlaws.cli.shared import ERRORS, Command, known_group, print_json, print_table
from jaxlaws.law import Law, Var, as_dict, variables

__all__ = ["add_commands"]


def add_commands(command: Command) -> None:
    """Add the commands to the parser."""
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


def _list(args: argparse.Namespace) -> None:
    if args.json:
        return print_json([{"name": law.name, **_about(law), "groups": len(law.groups)} for law in laws.values()])
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
    print_table(("law", "predicts", "inputs", "groups", "R2 held out"), rows, markdown=args.markdown)


def _show(args: argparse.Namespace) -> None:
    law = laws[args.law]
    names = list(law.groups) if args.group is None else [known_group(law, args.group)]
    groups = {name: as_dict(law.groups[name]) for name in names}
    if args.json:
        return print_json({"name": law.name, **_about(law), "groups": groups})
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
    print_table(("input", "what", "unit", "fitted on", "floor"), inputs)
    print()
    print_table(("output", "what", "unit"), [(_names(law, output), output.description, output.unit)])
    print()
    about = [(v.name, v.description, v.unit, _bounds(v)) for v in variables(law.coefs)]
    if any(v.shape for v in variables(law.coefs)):
        print_table(("coefficient", "what", "unit", "fitted within"), about)
        for name, coefs in groups.items():
            print(f"\ngroup {name}")
            for field, value in coefs.items():
                start = f"  {field} = "
                text = np.array2string(np.asarray(value), prefix=start, max_line_width=200, floatmode="unique")
                print(start + text)
    elif len(groups) <= 2:
        values = zip(*([repr(value) for value in coefs.values()] for coefs in groups.values()), strict=True)
        rows = [(*row, *own) for row, own in zip(about, values, strict=True)]
        print_table(("coefficient", "what", "unit", "fitted within", *groups), rows)
    else:
        print_table(("coefficient", "what", "unit", "fitted within"), about)
        print()
        names = [v.name for v in variables(law.coefs)]
        print_table(("group", *names), [(name, *map(repr, coefs.values())) for name, coefs in groups.items()])
    print()
    for key, value in {"objective": ERRORS[law.objective], **dataclasses.asdict(law.source)}.items():
        if value not in ("", None):
            print(f"{key:9} {value}")


def _bounds(v: Var) -> str:
    """Between which values a fit keeps a coefficient."""
    low, high = v.bounds
    if math.isinf(low) and math.isinf(high):
        return ""
    return f">= {low:g}" if math.isinf(high) else f"<= {high:g}" if math.isinf(low) else f"{low:g} to {high:g}"


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
        "objective": law.objective,
        "source": dataclasses.asdict(law.source),
    }


def _range(ends: Any) -> str:
    if ends is None:
        return ""
    low, high = (np.ravel(end) for end in ends)
    return "; ".join(f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True))
