"""Tables for people."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

__all__ = ["print_table"]


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
    console.print(table, width=max(least, console.width), crop=False)


def _is_number(text: str) -> bool:
    try:
        float(text or 0)
    except ValueError:
        return False
    return True
