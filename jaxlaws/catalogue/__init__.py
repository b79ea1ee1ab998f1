"""The laws: one file each, with one `LAW` in each. The folder is its own table of contents."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping

from jaxlaws.law import Law, UnknownNameError

__all__ = ["Catalogue", "laws"]


class Catalogue(Mapping[str, Law]):
    """A mapping from name to law that finds the files of this folder, and imports one when it is asked for."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(module.name for module in pkgutil.iter_modules(__path__)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in tuple(self)

    def __getitem__(self, name: str) -> Law:
        if name not in self:
            raise UnknownNameError.of("law", name, self)
        law: Law = importlib.import_module(f"{__name__}.{name}").LAW
        return law

    def __repr__(self) -> str:
        return f"<laws: {', '.join(self)}>"


laws = Catalogue()
