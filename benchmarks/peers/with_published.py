"""The Python code that a law was published as, where it is at hand: a loop over a list of dicts, in float64."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SOURCES = Path(__file__).parents[3] / "shared" / "seeds"


def prepare(case):
    """See the package."""
    path = SOURCES / f"{case.law.name}.py"
    if case.verb != "value" or not path.exists():
        return None
    if case.dtype != np.float64 or len(case.arrays[0]) > 1 << 16:
        pytest.skip("a loop in float64, whose speed does not depend on the number of rows")
    dicts, published = as_dicts(case), load(path)
    return lambda: published(dicts, case.group)


def as_dicts(case):
    """The configurations as the list of dicts that published code takes."""
    rows = zip(*(column.tolist() for column in case.columns), strict=True)
    return [dict(zip(case.law.input_columns, row, strict=True)) for row in rows]


def load(path):
    """The function `law` of a file of Python."""
    spec = importlib.util.spec_from_file_location(f"source_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.law
