"""The laws: one file each, with one `LAW` in each. The folder is its own table of contents.

Laws of other packages join them by an entry point of the group `jaxlaws.laws`, under the name of their file:

```toml
[project.entry-points."jaxlaws.laws"]
my_law = "my_package.my_law:LAW"
```
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, EntryPoints, entry_points

from jaxlaws.law import Law, UnknownNameError
from jaxlaws.tables import DataError

__all__ = ["Catalogue", "law_in", "laws"]


class Catalogue(Mapping[str, Law]):
    """A mapping from name to law that finds the files of this folder, and imports one when it is asked for.

    What other packages add is imported to be listed, too. An entry point that cannot be loaded, or has the name of a
    law of this folder, is left out with a warning; to ask for one that cannot be loaded is an error that says why.
    """

    def __iter__(self) -> Iterator[str]:
        found, problems = self._usable()
        for problem in problems:
            warnings.warn(problem, stacklevel=2)
        return iter(found)

    def __len__(self) -> int:
        return len(self._usable()[0])

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __getitem__(self, name: str) -> Law:
        if name in self._files():
            law: Law = importlib.import_module(f"{__name__}.{name}").LAW
            return law
        for point in self._points():
            if point.name == name:
                return _loaded(point)
        raise UnknownNameError.of("law", name, self._names())

    def __repr__(self) -> str:
        return f"<laws: {', '.join(self._names())}>"

    def _usable(self) -> tuple[list[str], list[str]]:
        """The names of laws that can be had, and what is wrong with entry points whose law cannot."""
        found, problems = self._files(), []
        taken = set(found)
        for point in self._points():
            if point.name in taken:
                problems.append(f"{_named(point)} is not used: there is another law of that name")
                continue
            taken.add(point.name)
            try:
                found.append(_loaded(point).name)
            except DataError as error:
                problems.append(str(error))
        return sorted(found), problems

    def _names(self) -> list[str]:
        """The names of all laws, without a look at those of other packages."""
        return sorted({*self._files(), *(point.name for point in self._points())})

    def _files(self) -> list[str]:
        return [module.name for module in pkgutil.iter_modules(__path__)]

    def _points(self) -> EntryPoints:
        """What other packages add."""
        return entry_points(group="jaxlaws.laws")


def _named(point: EntryPoint) -> str:
    return f"the entry point {point.name!r}" + (f" of the package {point.dist.name}" if point.dist else "")


def _loaded(point: EntryPoint) -> Law:
    """The law of an entry point."""
    try:
        found = point.load()
    except Exception as error:  # a module may raise anything
        raise DataError(f"{_named(point)} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, Law) or found.name != point.name:
        what = f"a law called {found.name!r}" if isinstance(found, Law) else repr(found)
        raise DataError(f"{_named(point)} is to hold a law of that name, and holds {what}")
    return found


def law_in(path: str | os.PathLike[str]) -> Law:
    """The law in a file of your own, which need not belong to a package.

    Args:
        path: A Python file that holds a law called `LAW`.

    Raises:
        OSError: The file cannot be read.
        ValueError: There is no law in it; or what else the file raises.

    Example:
        >>> import jaxlaws as jl
        >>> jl.law_in(jl.laws["moe"].fn.__code__.co_filename)
        <Law moe: dense_parameter_count, num_experts -> loss_validation>
    """
    found = getattr(module_in(path), "LAW", None)
    if not isinstance(found, Law):
        raise ValueError(f"{os.fspath(path)} has no law called LAW")
    return found


def module_in(path: str | os.PathLike[str]) -> types.ModuleType:
    """What a Python file defines."""
    path = os.fspath(path)
    sys.modules.setdefault("law_file", types.ModuleType("law_file"))
    name = f"law_file.{os.path.splitext(os.path.basename(path))[0]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


laws = Catalogue()
