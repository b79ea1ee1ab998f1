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
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points

from jaxlaws.law import Law, UnknownNameError

__all__ = ["Catalogue", "law_in", "laws"]


class Catalogue(Mapping[str, Law]):
    """A mapping from name to law that finds the files of this folder, and imports one when it is asked for."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._files(), *self._others()}))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._files() or name in self._others()

    def __getitem__(self, name: str) -> Law:
        if name in self._files():
            law: Law = importlib.import_module(f"{__name__}.{name}").LAW
            return law
        others = self._others()
        if name not in others:
            raise UnknownNameError.of("law", name, self)
        found = others[name].load()
        if not isinstance(found, Law) or found.name != name:
            what = f"a law called {found.name!r}" if isinstance(found, Law) else repr(found)
            raise ValueError(f"the entry point {name!r} is to hold a law of that name, and holds {what}")
        return found

    def __repr__(self) -> str:
        return f"<laws: {', '.join(self)}>"

    def _files(self) -> list[str]:
        return [module.name for module in pkgutil.iter_modules(__path__)]

    def _others(self) -> dict[str, EntryPoint]:
        """What other packages add."""
        return {point.name: point for point in entry_points(group="jaxlaws.laws")}


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
    found = getattr(module, "LAW", None)
    if not isinstance(found, Law):
        raise ValueError(f"{path} has no law called LAW")
    return found


laws = Catalogue()
