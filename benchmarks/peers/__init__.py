"""What jaxlaws is measured against: laws and their gradients, written as well as each tool allows.

Each peer gets coefficients and columns in its own best form, prepared before the clock starts, and uses all cores where
it can:

* numpy: vectorised by hand, `**` for powers, fresh outputs; mixtures are matrix products over an (n, 5) array.
* numexpr: exp-log form, into kept outputs (`out=`); the logs of a mixture are computed once, into kept columns.
* numba: a parallel loop with fast mathematics and `**`, into kept outputs; one column per proportion.
* polars: exp-log form, a lazy query over a frame of Series, fresh outputs.
* torch: `torch.compile(dynamic=False)` of the exp-log form over columns, no gradients recorded, fresh outputs.
* c: exp-log form with OpenMP and libmvec, into kept outputs; one array per column.
* c_rows: the same for a mixture in the layout that jaxlaws gets, an (n, 5) array in and out.
* c_pow: the first with `pow`; the error of exp-log, here as in jaxlaws, is that of the logarithm times the exponent.
* published: the Python code that the law was published as, on a list of dicts.

Each module has `prepare(case)`, which returns a function of no arguments to time. Its result is an array of rows, or
the columns of the output (for gradients, of the inputs), or a list of dicts. It is None for what nobody wrote.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import jaxlaws as jl
from jaxlaws.columns import from_columns
from jaxlaws.law import Law, variables

NAMES = ("numpy", "numexpr", "numba", "polars", "torch", "c", "c_rows", "c_pow", "published")
LAWS = (
    "data_constrained",
    "data_mixing",
    "domain_mixture",
    "moe",
    "parallel",
    "sft",
)  # those that peers were written for
DISTINCT = 1 << 20  # configurations; longer batches repeat them


@dataclasses.dataclass(frozen=True)
class Case:
    """One comparison: what is computed, and on which configurations."""

    law: Law
    verb: str
    inputs: Any

    @property
    def name(self) -> str:
        """The name of the function that peers write."""
        return self.law.name if self.verb == "value" else f"{self.law.name}_{self.verb}"

    @property
    def group(self) -> str:
        """The group of all rows."""
        return list(self.law.groups)[-1]

    @property
    def arrays(self) -> list[np.ndarray]:
        """The inputs in their order."""
        return jax.tree.leaves(self.inputs)

    @property
    def dtype(self) -> np.dtype:
        """That of the inputs."""
        return self.arrays[0].dtype

    @property
    def columns(self) -> list[np.ndarray]:
        """The inputs as contiguous columns."""
        return [np.ascontiguousarray(column) for x in self.arrays for column in (x.T if x.ndim == 2 else [x])]

    @property
    def coefs(self) -> dict[str, Any]:
        """The coefficients by name."""
        return {
            name: np.asarray(value, self.dtype)[()] for name, value in jl.as_dict(self.law.groups[self.group]).items()
        }

    def outputs(self, like: list[np.ndarray]) -> list[np.ndarray]:
        """New arrays for the result: one, or for gradients and mixtures one for each of those given."""
        several = self.verb == "gradient" or self.law.output_shape
        return [np.empty_like(array) for array in (like if several else like[:1])]


@functools.lru_cache(maxsize=1)
def configurations(law: Law, rows: int, dtype: str) -> Any:
    """Random configurations within the fitted range, as a record of NumPy arrays."""
    random = np.random.default_rng(0)
    distinct = min(rows, DISTINCT)
    columns: list[np.ndarray] = []
    for v in variables(law.inputs):
        names = v.column_names(law.sizes)
        if v.total is not None:
            columns += list(random.dirichlet(np.ones(len(names)), distinct).T)
        else:
            low, high = np.log(np.asarray(v.range, float))
            columns += [np.exp(random.uniform(low, high, distinct)) for _ in names]
    record = from_columns(law, [column.astype(dtype) for column in columns])
    return jax.tree.map(lambda leaf: np.resize(leaf, (rows, *leaf.shape[1:])), record)


def prepare(peer: str, case: Case) -> Callable[[], Any]:
    """The function to time; skips the benchmark where the peer is not installed, or the law not written for it."""
    try:
        module = importlib.import_module(f"{__name__}.with_{peer}")
    except ImportError as error:
        pytest.skip(f"{peer} is not installed: {error}")
    run: Callable[[], Any] | None = module.prepare(case)
    if run is None:
        pytest.skip(f"nobody wrote {case.name} for {peer}")
    return run
