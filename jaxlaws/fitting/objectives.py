"""What fits minimise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

__all__ = ["OBJECTIVES", "Objective", "is_robust"]


class Objective(NamedTuple):
    """A sum over runs of a function of the error, as functions of the prediction and the measurement.

    Attributes:
        error: The error of a prediction, from prediction and measurement.
        slope: Its derivative by the prediction, from the same.
        bend: Its second derivative by the prediction, over the square of the first; 0 where it is linear.
        delta: Beyond which size an error counts by its size (Huber), and below by half of its square.
    """

    error: Callable[[Any, Any], Any]
    slope: Callable[[Any, Any], Any]
    bend: float = 0.0
    delta: float = np.inf

    def of_errors(self, error: Any) -> Any:
        """What each error adds to the sum."""
        if self.delta == np.inf:
            return error**2 / 2
        size = abs(error)
        inner = (np if isinstance(error, np.ndarray) else jnp).minimum(size, self.delta)
        return inner * (size - inner / 2)


OBJECTIVES = {
    "squared": Objective(lambda f, y: f - y, lambda f, y: jnp.ones_like(f)),
    "relative": Objective(lambda f, y: f / y - 1, lambda f, y: jnp.broadcast_to(1 / y, f.shape)),
    # As in Hoffmann et al. 2022 (arXiv:2203.15556).
    "huber_log": Objective(lambda f, y: jnp.log(jnp.where(f > 0, f / y, jnp.nan)), lambda f, y: 1 / f, -1.0, 1e-3),
}


def is_robust(objective: str) -> bool:
    """Whether large errors count less than by their squares."""
    return OBJECTIVES[objective].delta < np.inf
