"""Tables for people."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxlaws.text import printable

__all__ = ["print_table", "screen_width", "table_width"]

PROSE = 12  # characters to which a column of words may be narrowed
WIDE = 10_000  # wider than any table
GAP = 3  # between columns


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False, file: Any = None
) -> None:
    """Print rows of text as a table; columns of numbers are aligned to the right.

    On a terminal, columns of words are folded between words where the table is too wide, and if that is not enough,
    the table is turned: a column per row, in as many tables as it takes. No number and no word is ever cut. Elsewhere
    lines are as long as they need to be.
    """
    file = file or sys.stdout
    header, rows = list(map(printable, header)), [list(map(printable, row)) for row in rows]
    screen = Console(file=file).width if file.isatty() and not markdown else WIDE
    if not rows or _total(_widths(header, rows, screen)) <= screen:
        return _print(header, rows, screen, markdown, file)

    def turned(start: int, end: int) -> tuple[Sequence[str], list[Sequence[str]]]:
        first, *others = zip(header, *rows[start:end], strict=True)
        return first, list(others)

    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and table_width(*turned(start, end + 1)) <= screen:
            end += 1
        if start:
            print(file=file)
        _print(*turned(start, end), screen, markdown, file)
        start = end
    return None


def table_width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """How wide a table is where nothing is folded."""
    return _total(_widths(header, rows, WIDE))


def screen_width() -> int:
    """How wide standard output is: that of the terminal, or elsewhere what is well read."""
    return Console().width if sys.stdout.isatty() else 100


def _print(header: Sequence[str], rows: Sequence[Sequence[str]], screen: int, markdown: bool, file: Any) -> None:
    table = Table(box=box.MARKDOWN if markdown else box.SIMPLE_HEAD, pad_edge=False, show_edge=markdown)
    widths = _widths(header, rows, screen)
    for i, name in enumerate(header):
        right = all(_is_number(row[i]) for row in rows)
        table.add_column(Text(name), justify="right" if right else "left")
    for row in rows:
        table.add_row(*(Text(_folded(cell, width)) for cell, width in zip(row, widths, strict=True)))
    console = Console(file=file, width=WIDE, height=1, highlight=False)  # with both it asks no terminal
    with console.capture() as printed:
        console.print(table, crop=False)
    text = printed.get()
    print(text.strip("\n ") if markdown else text, file=file, end="\n" if markdown else "")


def _folded(text: str, width: int) -> str:
    """Lines of words; which rich would make, but with more space about them in older versions."""
    if cell_len(text) <= width:
        return text
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]], screen: int) -> list[int]:
    """The widths of the columns: columns of words are narrowed, the widest first, until the table fits a screen."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    least = [
        width
        if all(map(_is_whole, cells))
        else min(width, max(PROSE, *(cell_len(w) for c in column for w in c.split())))
        for width, column, cells in zip(widths, columns, (column[1:] for column in columns), strict=True)
    ]
    while _total(widths) > screen and (wide := [i for i, width in enumerate(widths) if width > least[i]]):
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _is_whole(text: str) -> bool:
    """Whether a cell is a number, or an interval such as 1e+09 to 2e+09, which stays in one line."""
    return all(map(_is_number, text.split(" to ")))


def _is_number(text: str) -> bool:
    try:  # also a number with its error, as 0.35 ± 0.02 or 0.35(2)
        list(map(float, re.sub(r"\(\d+\)$", "", text or "0").split("±")))
    except ValueError:
        return False
    return True
