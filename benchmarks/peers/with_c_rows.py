"""The same C for a mixture in the layout that jaxlaws gets: an array of rows in, and one out."""

from __future__ import annotations

from . import with_c


def prepare(case):
    """See the package."""
    return with_c.prepare(case, rows=True)
