"""C with OpenMP and libmvec, compiled by the machine's compiler when it is needed; one array per column."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

FLAGS = "-O3 -march=native -mprefer-vector-width=512 -ffast-math -fopenmp -lmvec -lm".split()
REAL = {"float32": "float", "float64": "double"}


def prepare(case, rows=False, options=()):
    """See the package."""
    if compiler() is None:
        pytest.skip("there is no C compiler")
    name = f"{case.name}_rows" if rows else case.name
    if f"LAW({name})" not in SOURCE.read_text():
        return None
    x = case.arrays if rows else case.columns
    y = case.outputs(x)
    c = np.concatenate([np.ravel(value) for value in case.coefs.values()])
    fn = library(c.dtype.name, *options)[name]
    args = ctypes.c_long(len(x[0])), ctypes.c_void_p(c.ctypes.data), pointers(x), pointers(y)

    def run():
        fn(*args)
        return y[0] if rows else tuple(y)

    run.kept = c, x  # C knows them by address only
    return run


def memory(inputs, outputs):
    """A function that reads columns and writes others, and computes next to nothing: the limit of memory."""
    if compiler() is None:
        pytest.skip("there is no C compiler")
    fn = library(inputs[0].dtype.name)["memory"]
    args = ctypes.c_long(len(inputs[0])), len(inputs), len(outputs), pointers(inputs), pointers(outputs)

    def run():
        fn(*args)
        return outputs

    run.kept = inputs
    return run


SOURCE = Path(__file__).with_name("laws.c")


def compiler():
    """The path of the C compiler, or None."""
    return shutil.which(os.environ.get("CC", "cc"))


@functools.cache
def library(dtype, *options):
    """The functions of laws.c for a dtype; those of fast mathematics are vectors where libmvec is there."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "laws.so")
        command = [compiler(), "-shared", "-fPIC", f"-Dreal={REAL[dtype]}", *options, SOURCE, "-o", target, *FLAGS]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"the C compiler, which may be for another machine, says: {error.stderr}")
        return ctypes.CDLL(target)


def pointers(arrays):
    """A C array of their addresses."""
    return (ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])
