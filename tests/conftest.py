"""What the tests share: sources as oracles, and configurations of any law."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import json
import os
import sys
from pathlib import Path

import jax
import jax.monitoring
import pytest
from sampling import KINDS

import jaxlaws as jl
from jaxlaws import programs
from jaxlaws.cli import main

HERE = Path(__file__).parent
TESTS = itertools.count(1)
SHARED = HERE.parent.parent / "shared"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Where programs are kept: not in the home of who runs the tests, and the same folder for all of their processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "programs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXLAWS_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def forgotten():
    """Forgets what is compiled now and then: a process may not map so many programs as all tests compile."""
    yield
    if next(TESTS) % 50 == 0:
        jax.clear_caches()
        programs.forget()


@pytest.fixture(params=KINDS)
def law(request):
    """A law of each kind."""
    return jl.laws[request.param]


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def compilations():
    """A context whose value is a list that grows with each program that is compiled, or loaded from disk, within."""
    lists = []

    def note(event, duration, **_):
        if event.endswith("backend_compile_duration") or event == programs.LOADED:
            for found in lists:
                found.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)  # JAX has no public way to take it back

    @contextlib.contextmanager
    def count():
        lists.append([])
        try:
            yield lists[-1]
        finally:
            lists.pop()

    return count


@pytest.fixture(scope="session")
def golden():
    """What the published code of each law returns: {law: {"rows": [...], "outputs": {group: [[...], ...]}}}."""
    return json.loads((HERE / "golden.json").read_text())


@pytest.fixture(scope="session")
def source():
    """The published code of a law, where it is at hand."""

    def load(name):
        path = SHARED / "seeds" / f"{name}.py"
        if not path.exists():
            pytest.skip("needs the published code of the laws")
        spec = importlib.util.spec_from_file_location(f"source_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.law

    return load


@pytest.fixture(scope="session")
def runs():
    """The path of a table of real training runs of a law, where it is at hand."""

    def path(name):
        path = SHARED / "data" / f"sldbench_{name}_train.csv"
        if not path.exists():
            pytest.skip("needs real training runs")
        return path

    return path


@pytest.fixture
def no_matplotlib(monkeypatch):
    """Where matplotlib is not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command: exit status, standard output, standard error."""

    def run(*args, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        try:
            status = main([str(arg) for arg in args])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture(scope="session")
def data():
    """The folder of real runs."""
    if not (SHARED / "data").is_dir():
        pytest.skip("real runs are not there")
    return SHARED / "data"
