"""Text in files: blocks of whole lines, in UTF-8, with errors that name the line; and text that is safe to show."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any

from jaxlaws.tables import DataError

__all__ = ["blocks", "decoded", "printable"]

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and ends of lines


def blocks(source: Any, size: int) -> Iterator[bytes]:
    """What is left of a stream of bytes, in blocks of about this size that end with a line."""
    pieces: list[bytes] = []
    while data := source.read(size):
        end = data.rfind(b"\n") + 1
        if end:
            yield b"".join([*pieces, data[:end]])
            pieces = []
        if end < len(data):
            pieces.append(data[end:])
    if pieces:
        yield b"".join(pieces)


def decoded(data: bytes, line: int) -> str:
    """A block of a file as text; its first line is the one with this number.

    Raises:
        DataError: It is not UTF-8.
    """
    if data.startswith(UTF_16) or b"\0" in data[:64]:
        raise DataError("the text is UTF-16, or no text at all; save it as UTF-8")
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise DataError(
            f"the text is not UTF-8: byte 0x{data[error.start]:02x} in line {line}; save it as UTF-8"
        ) from None


def printable(text: str) -> str:
    r"""Text whose control characters, which a terminal would obey, are written as \x1b."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
