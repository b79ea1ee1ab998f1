"""The rule for proportions that do not sum to 1: if nearly so they are divided by their sum, else they are an error."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlaws.programs import LONG_VECTORS, Program

__all__ = ["Normalised", "ProportionsWarning"]

ROUNDING = 1e-6  # how far off a sum may be by rounding, relative; float32 is within 1e-7, bfloat16 within NEAR
BLOCK = 1 << 17  # rows, from which compiled sums pay
COLUMNS = 32  # of which sums are added column by column
NEAR = 1e-2  # how far off it may be, relative, and be meant; also of 100, for percent


class ProportionsWarning(UserWarning):
    """Proportions did not sum to 1, and were divided by their sum; the message tells the sum that was furthest off."""


@dataclasses.dataclass
class Normalised:
    """How many rows of proportions were divided by their sum; counts add up over batches.

    Attributes:
        rows: How many were.
        of: How many rows there are.
        worst: How far the sum of one was off at most, relative to 1 or to 100.
        told: That sum, and its row.
    """

    rows: int = 0
    of: int = 0
    worst: float = -1.0
    told: str = ""

    def add(
        self,
        values: np.ndarray,
        total: float,
        what: str,
        place: Callable[[tuple[int, ...]], str],
        unused: np.ndarray | None = None,
    ) -> np.ndarray:
        """Rows [..., element] with the sum `total`; those that have it, but for rounding, as they are.

        Args:
            values: The rows, of floats.
            total: What each is to sum to.
            what: What errors call them.
            place: Where one of them is, by its index, in words such as " in row 3".
            unused: Which rows may have any sum.

        Raises:
            ValueError: A sum is far off.
        """
        self.of += values.size // values.shape[-1] - (0 if unused is None else int(unused.sum()))
        if _summing(values, total):
            return values
        with np.errstate(invalid="ignore", over="ignore"):
            sums = np.asarray(values.sum(axis=-1, dtype=np.float64))
        off = np.abs(sums / total - 1)
        wrong = off > (ROUNDING if values.dtype.itemsize > 2 else NEAR)  # which NaN is not
        if unused is not None:
            wrong &= ~unused
        if not wrong.any():
            return values
        if total == 1:
            off = np.minimum(off, np.abs(sums / 100 - 1))
        worst = np.unravel_index(np.argmax(np.where(wrong, off, -1)), off.shape)
        told = f"{sums[worst]:.6g}{place(tuple(map(int, worst)))}"
        if far := int((wrong & (off > NEAR)).sum()):
            others = f"; {far:,} of {off.size:,} rows are far off" if far > 1 else ""
            raise ValueError(f"{what} must sum to {total:g}, and the sum is {told}{others}")
        self.rows += int(wrong.sum())
        if off[worst] > self.worst:
            self.worst, self.told = float(off[worst]), told
        scaled = np.asarray(values, np.float64) * (total / sums)[..., None]
        found: np.ndarray = np.where(wrong[..., None], scaled, values).astype(values.dtype)
        return found

    def __str__(self) -> str:
        many = f"{self.rows:,} of {self.of:,} rows of proportions" if self.of > 1 else "proportions"
        furthest = ", the furthest off" if self.rows > 1 else ""
        return f"{many} did not sum to 1 and were divided by their sum, which is {self.told}{furthest}"


def _summing(values: np.ndarray, total: float) -> bool:
    """Whether all rows are known to have the sum `total`, in little time."""
    if values.dtype not in (np.float32, np.float64) or not values.size:
        return False
    rows = values.reshape(-1, values.shape[-1])
    few = rows.shape[1] <= COLUMNS
    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    with np.errstate(invalid="ignore", over="ignore"), jax.enable_x64(values.dtype == np.float64):
        found = [
            _compiled(total, block) if few and len(block) == BLOCK else _near(total, block, np) for block in blocks
        ]
        return all(map(bool, found))


def _near(total: float, rows: Any, numpy: Any = jnp) -> Any:
    """Whether the sums of these rows are nearly the total, by NumPy or JAX; not if one is NaN."""
    # Both are slow at sums over a short last axis.
    sums = functools.reduce(operator.add, rows.T) if rows.shape[1] <= COLUMNS else numpy.einsum("ij->i", rows)
    return (abs(sums - total) <= ROUNDING / 2 * total).all()


_compiled = Program(_near, static=1, cpu_options=LONG_VECTORS)
