"""What is said of answers of a search that lie outside the range that a law was fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlaws.law import Law, variables
from jaxlaws.ranges import Outside, RangeWarning, beyond, by_input, ranges_for
from jaxlaws.tables import Rows
from jaxlaws.warning import warn_caller

__all__ = ["extrapolated"]


def extrapolated(
    law: Law, group: Any, ids: Any, inputs: Any, feasible: Any, hint: str, tried: Mapping[str, tuple[float, float]]
) -> Any:
    """Which inputs of the answers lie outside the range of their group: a record of booleans like the inputs.

    Args:
        law: The law.
        group: The group as the search was given it.
        ids: Ids of groups, where those were given.
        inputs: The inputs of the answers, which broadcast.
        feasible: Which of them are answers; has all axes of the batch.
        hint: What to do about answers outside.
        tried: How far an input that has no bound is tried, by name.

    Warns:
        RangeWarning: An answer lies outside, or is as far as is tried. Not for tracers, of which nothing is known.
    """
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((inputs, ids)))
    xp: Any = jnp if traced else np

    def full(name: str, core: int) -> Any:
        array = xp.asarray(getattr(inputs, name))
        return xp.broadcast_to(array, (*np.shape(feasible), *array.shape[array.ndim - core :]))

    inputs = law.inputs(**{v.name: full(v.name, len(v.shape)) for v in variables(law.inputs)})
    found = by_input(law, beyond(ranges_for(law, group, ids), inputs), inputs)
    if traced:
        return found
    chosen = np.asarray(feasible)
    answers = jax.tree.map(lambda x: x[chosen], inputs)
    if ids is not None:
        group = np.broadcast_to(np.asarray(ids), chosen.shape)[chosen]
    outside = Outside(law, "answers")
    outside.add(Rows(inputs=answers, group=group, count=int(chosen.sum())))
    said = [f"{outside}{hint}"] if outside.rows else []
    for name, (low, high) in tried.items():
        values = getattr(answers, name)
        for kind, far in (("lower", values < 1.001 * low), ("upper", values > 0.999 * high)):
            if far.any():
                said.append(f"{name} ends at {values[far][0]:g}, as far as is tried; give {kind}={{{name!r}: ...}}")
    if said:
        warn_caller("; ".join(said), RangeWarning)
    return found
