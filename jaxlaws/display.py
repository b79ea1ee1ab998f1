"""Tables for people."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

__all__ = ["print_table", "screen_width", "table_width"]


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False, file: Any = None
) -> None:
    """Print rows of text as a table; columns of numbers are aligned to the right.

    Fits the width of a terminal; elsewhere lines are as long as they need to be.
    """
    table = Table(box=box.MARKDOWN if markdown else box.SIMPLE_HEAD, pad_edge=False, show_edge=markdown)
    for i, name in enumerate(header):
        right = all(_is_number(row[i]) for row in rows)
        table.add_column(Text(name), justify="right" if right else "left", overflow="fold", no_wrap=right)
    for row in rows:
        table.add_row(*map(Text, row))
    file = file or sys.stdout
    width = None if file.isatty() and not markdown else 10_000
    console = Console(file=file, width=width, highlight=False)
    least = Measurement.get(console, console.options, table).minimum  # with less, numbers would be cut
    with console.capture() as printed:
        console.print(table, width=max(least, console.width), crop=False)
    text = printed.get()
    print(text.strip("\n ") if markdown else text, file=file, end="\n" if markdown else "")


def table_width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """How wide a table is where nothing is folded."""
    return sum(max(map(len, column)) + 3 for column in zip(header, *rows, strict=True)) - 3


def screen_width() -> int:
    """How wide standard output is: that of the terminal, or elsewhere what is well read."""
    return Console().width if sys.stdout.isatty() else 100


def _is_number(text: str) -> bool:
    try:  # also a number with its error, as 0.35 ± 0.02 or 0.35(2)
        list(map(float, re.sub(r"\(\d+\)$", "", text or "0").split("±")))
    except ValueError:
        return False
    return True
