"""The same C with the pow of libmvec: slower, and exact for any exponent."""

from __future__ import annotations

from . import with_c


def prepare(case):
    """See the package."""
    return None if case.law.output_shape else with_c.prepare(case, options=("-DPOWER(x,a)=pow(x,a)",))
