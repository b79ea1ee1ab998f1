"""numexpr: the exp-log form, into kept outputs."""

from __future__ import annotations

import numexpr
import numpy as np

from .expressions import EXPRESSIONS, numbers


def prepare(case):
    """See the package."""
    found = EXPRESSIONS.get(case.name)
    if found is None:
        return None
    numexpr.set_num_threads(numexpr.detect_number_of_cores())
    x = case.columns
    # Coefficients are arrays without axes: a number in the text, or of Python, would make float32 columns float64.
    names = {name: np.asarray(value) for name, value in numbers(case).items()}
    names |= {f"x{i}": column for i, column in enumerate(x)} | {name: np.empty_like(x[0]) for name in found.temporaries}
    steps = [(text, names[name]) for name, text in found.temporaries.items()]
    steps += [(text, np.empty_like(x[0])) for text in found.results]
    results = tuple(out for _, out in steps[len(found.temporaries) :])

    def run():
        for text, out in steps:
            numexpr.evaluate(text, names, out=out)
        return results

    return run
