"""Random configurations of any law."""

from __future__ import annotations

import jaxlaws as jl
from jaxlaws.columns import from_columns
from jaxlaws.testing import evaluated as formula
from jaxlaws.testing import sample as columns

__all__ = ["PUBLISHED", "columns", "formula", "inputs"]

# The laws whose source is code that a program wrote for a task of SLDBench.
PUBLISHED = [name for name, law in jl.laws.items() if law.source.agent]


def inputs(law, count, **options):
    """The same as a record."""
    return from_columns(law, list(columns(law, count, **options).values()))
