"""Warnings at the caller's line."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn_caller"]


def warn_caller(message: object, category: type[Warning]) -> None:
    """A warning at the line outside of this package that led to it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "jaxlaws":
        frame, level = frame.f_back, level + 1
    warnings.warn(str(message), category, stacklevel=level)
