"""Random configurations of any law."""

from __future__ import annotations

import jaxlaws as jl
from jaxlaws.columns import from_columns
from jaxlaws.law import variables
from jaxlaws.testing import evaluated as formula
from jaxlaws.testing import sample as columns

__all__ = ["KINDS", "PUBLISHED", "columns", "formula", "inputs"]


def kind(law):
    """What makes laws different to the code that is written for all of them."""
    inputs = tuple(
        sorted({(v.shape, v.floor is None, v.missing is None, not v.aliases) for v in variables(law.inputs)})
    )
    return inputs, law.output_shape, len(law.groups) > 1, law.fallback is None


def has_examples(law):
    """Whether there are groups, and ranges that configurations can be drawn from."""
    return bool(law.groups) and all(v.range is not None for v in variables(law.inputs))


# A law of each kind, and all of SLDBench, which have more to them.
_BY_SOURCE = sorted(jl.laws.values(), key=lambda law: bool(law.source.agent))
KINDS = {kind(law): law.name for law in _BY_SOURCE if has_examples(law)}
KINDS = sorted({*KINDS.values(), *(law.name for law in _BY_SOURCE if law.source.agent)})

# The laws whose source is code that a program wrote for a task of SLDBench.
PUBLISHED = [name for name, law in jl.laws.items() if law.source.agent]


def inputs(law, count, **options):
    """The same as a record."""
    return from_columns(law, list(columns(law, count, **options).values()))
