"""Which runs of a table are of which scale: conditions on columns, and levels of a column."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlaws.law import Law, variables
from jaxlaws.tables import DataError, missing, numbers

__all__ = ["WITHIN", "chosen", "column_of", "levels_of", "name_of", "names_in"]

WITHIN = 0.05  # relative difference of values of one level

SIGNS = {">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt}
MIRRORED = {">=": "<=", "<=": ">=", "==": "==", ">": "<", "<": ">"}
TOKEN = re.compile(r"""\s*(?:(["'`])(?P<quoted>.+?)\1|(?P<sign>>=|<=|==|>|<|&+)|(?P<word>[^\s<>=&"'`]+))""")
FORMS = "'num_params>2e9', 'num_params>2e9 and parallel_size==4' or '20% of num_params'"


def levels_of(values: np.ndarray, within: float = WITHIN) -> tuple[np.ndarray, np.ndarray]:
    """The level of each value, as a position, and the least value of each level, in ascending order.

    A level goes from its least value up to `within` more than that, in a share of it. Where some values are not
    positive, which have no ratio, every value is a level.

    Example:
        >>> import numpy as np
        >>> level, least = levels_of(np.array([4e9, 1.01e9, 1e9, 2e9]))
        >>> level.tolist(), least.tolist()
        ([2, 0, 0, 1], [1000000000.0, 2000000000.0, 4000000000.0])
    """
    distinct, place = np.unique(values, return_inverse=True)
    reach = 1 + within if distinct[0] > 0 else 1
    least: list[Any] = []
    level = np.zeros(len(distinct), int)
    for i, value in enumerate(distinct):
        if not least or value > least[-1] * reach:
            least.append(value)
        level[i] = len(least) - 1
    return level[place], np.asarray(least)


def column_of(frame: Any, laws: Sequence[Law], name: str) -> str:
    """The column of a table that a name means: a column's own, or any name of an input of one of the laws."""
    if name in frame.columns:
        return name
    for law in laws:
        for v in variables(law.inputs):
            names = (v.name, *v.aliases)
            if name in names and not v.shape:
                found = [other for other in names if other in frame.columns]
                if len(found) == 1:
                    return found[0]
    raise missing(frame.columns, name)


def chosen(
    holdout: Any, frame: Any, laws: Sequence[Law], first_row: int = 0, left_out: np.ndarray | None = None
) -> np.ndarray:
    """The rows that a hold-out names, a mask; see [`hold_out`][jaxlaws.hold_out] for what it may be.

    Rows that are left out may lack the numbers that it asks for, and are not among those that it names.
    """
    there = np.ones(len(frame), bool) & (True if left_out is None else ~left_out)
    columns: dict[str, np.ndarray] = {}
    if isinstance(holdout, str):
        found = there.copy()
        for name, sign, number in _clauses(holdout):
            column = column_of(frame, laws, name)
            columns[column] = values = numbers(frame, column, first_row, left_out)[there]
            found[there] &= _largest(values, number) if sign == "%" else SIGNS[sign](values, number)
    else:
        found = np.asarray(holdout)
        if found.shape != (len(frame),) or found.dtype != bool:
            wanted = f"a condition such as {FORMS}, or True or False for each of {len(frame)} rows"
            raise DataError(f"holdout must be {wanted}; it is an array of {found.dtype} of shape {found.shape}")
        found = found & there
    what = name_of(holdout)
    if not found.any():
        ranges = "".join(f"; {column} is {v.min():g} to {v.max():g}" for column, v in columns.items() if len(v))
        raise DataError(f"{what} holds out none of {there.sum()} runs{ranges}")
    if found[there].all():
        raise DataError(f"{what} holds out all of {there.sum()} runs, and leaves none to fit")
    return found


def name_of(holdout: Any) -> str:
    """A hold-out in errors."""
    return f"hold-out {holdout!r}" if isinstance(holdout, str) else "the mask of the hold-out"


def _largest(values: np.ndarray, share: float) -> np.ndarray:
    """The fewest of the largest levels that have at least this share of the values."""
    level, least = levels_of(values)
    counts = np.bincount(level, minlength=len(least))
    above = np.cumsum(counts[::-1])[::-1]  # values at this level or a larger one
    wanted = share * len(values) - 1e-9
    largest: np.ndarray = level >= np.flatnonzero(above >= wanted)[-1]
    return largest


def names_in(holdout: str) -> list[str]:
    """The columns that a condition names.

    Raises:
        DataError: It is no condition.
    """
    return [name for name, _, _ in _clauses(holdout)]


def _clauses(text: str) -> list[tuple[str, str, float]]:
    """Column, sign and number of each part of a condition; the sign is "%" for the share of the largest values."""
    clauses: list[list[tuple[str, str]]] = [[]]
    position = 0
    while text[position:].strip():
        match = TOKEN.match(text, position)
        if match is None:
            raise _unreadable(text)
        position = match.end()
        kind = str(match.lastgroup)
        token = match[kind]
        if token.startswith("&") or (kind == "word" and token.lower() == "and"):
            clauses.append([])
        else:
            clauses[-1].append((kind, token))
    return [_clause(text, clause) for clause in clauses]


def _clause(text: str, tokens: Sequence[tuple[str, str]]) -> tuple[str, str, float]:
    signs = [i for i, (kind, _) in enumerate(tokens) if kind == "sign"]
    if not signs:
        share = re.match(r"([^%\s]+) ?% ?of (.+)", " ".join(token for _, token in tokens), re.IGNORECASE)
        number = None if share is None else _number(share[1])
        if share is None or number is None:
            raise _unreadable(text)
        if not 0 < number < 100:
            raise DataError(f"hold-out {text!r}: a share must be more than 0% and less than 100%")
        return share[2], "%", number / 100
    if len(signs) > 1:
        raise _unreadable(text)
    sign = tokens[signs[0]][1]
    sides = tokens[: signs[0]], tokens[signs[0] + 1 :]
    left, right = (" ".join(token for _, token in side) for side in sides)
    of_left, of_right = (
        None if any(kind == "quoted" for kind, _ in side) else _number(words)
        for side, words in zip(sides, (left, right), strict=True)
    )
    if left and of_left is None and of_right is not None:
        return left, sign, of_right
    if right and of_right is None and of_left is not None:
        return right, MIRRORED[sign], of_left
    raise _unreadable(text)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _unreadable(text: str) -> DataError:
    return DataError(f"hold-out {text!r} is not a condition such as {FORMS}")
