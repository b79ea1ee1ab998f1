"""torch.compile of the exp-log form, for the one shape that is timed."""

from __future__ import annotations

import functools
import warnings

import torch

from .expressions import EXPRESSIONS, numbers

torch.set_grad_enabled(False)


def prepare(case):
    """See the package."""
    found = EXPRESSIONS.get(case.name)
    if found is None:
        return None
    start()
    x = [torch.from_numpy(column) for column in case.columns]
    names = {name: float(value) for name, value in numbers(case).items()} | {"exp": torch.exp, "log": torch.log}
    temporaries = "".join(f"{name} := {text}, " for name, text in found.temporaries.items())
    results = ", ".join(found.results)
    parameters = ", ".join(f"x{i}" for i in range(len(x)))
    plain = eval(f"lambda {parameters}: ({temporaries}{results},)[{len(found.temporaries)}:]", names)
    fn = torch.compile(plain, dynamic=False)

    def run():
        return fn(*x)

    return run


@functools.cache
def start():
    """Import the compiler and start its workers, which takes longer than to compile a law."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.compile(lambda x: x + 1, dynamic=False)(torch.ones(2))
