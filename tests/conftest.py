"""What the tests share: sources as oracles, and configurations of any law."""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import io
import itertools
import json
import os
import sys
import tempfile
from pathlib import Path

import jax
import jax.monitoring
import pytest
import reported
from sampling import KINDS

import jaxlaws as jl
from jaxlaws import evaluation, programs
from jaxlaws.cli import main
from jaxlaws.fitting import estimation, form, starts
from jaxlaws.numerics import plain
from jaxlaws.optimize import allocation, mixture

HERE = Path(__file__).parent
TESTS = itertools.count(1)
BUDGET = 2100  # programs that all tests together may compile, on a CPU; the same one by several processes is one
SHARED = HERE.parent.parent / "shared"


def pytest_addoption(parser):
    parser.addoption("--every", type=int, default=1, metavar="N", help="of each file, run the first test and every Nth")


def pytest_collection_modifyitems(config, items):
    """Leaves a selection of tests that touches every file, as for `--every`."""
    numbers = collections.Counter()
    kept, dropped = [], []
    for item in items:
        (kept if numbers[item.path] % config.getoption("every") == 0 else dropped).append(item)
        numbers[item.path] += 1
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def pytest_configure(config):
    """Keeps programs in a folder that all processes of the tests share: not in the home of who runs them."""
    config.compiled = set()
    if not hasattr(config, "workerinput"):
        config.programs = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        os.environ["JAXLAWS_CACHE"] = config.programs.name
    programs.MOST_KEPT = 100_000
    compiled = programs._compiled

    def counted(*args):
        found, path = compiled(*args)
        config.compiled.update({path.name} if path else ())
        return found, path

    programs._compiled = counted


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """What another process has compiled, at its end."""
    node.config.compiled.update(getattr(node, "workeroutput", {}).get("compiled", ()))


def pytest_sessionfinish(session):
    """Fails where all tests together compile more programs than they did."""
    config = session.config
    if hasattr(config, "workerinput"):
        config.workeroutput["compiled"] = sorted(config.compiled)
        return
    count = len(config.compiled)
    chosen = config.getoption("keyword") or config.getoption("every") > 1 or config.args_source.name != "TESTPATHS"
    config.counted = f"{count} programs compiled, {BUDGET} are allowed" + (", for all tests" if chosen else "")
    if count > BUDGET and not chosen and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        config.counted = f"FAILED: {config.counted}: let tests share shapes and options, or say in conftest.py why not"


def pytest_terminal_summary(terminalreporter, config):
    if hasattr(config, "counted"):
        terminalreporter.write_line(config.counted)


def pytest_unconfigure(config):
    if hasattr(config, "programs"):
        config.programs.cleanup()


@pytest.fixture(autouse=True)
def forgotten():
    """Forgets what is compiled now and then: a process may not map so many programs as all tests compile."""
    yield
    if next(TESTS) % 50 == 0:
        jax.clear_caches()
        programs.forget()


@pytest.fixture(autouse=True)
def honest(monkeypatch):
    """Every fit of every test reports what it returns."""
    assembled = estimation._assembled

    def checked(*args):
        fit = assembled(*args)
        reported.check(fit)
        return fit

    monkeypatch.setattr(estimation, "_assembled", checked)


@pytest.fixture(params=KINDS)
def law(request):
    """A law of each kind."""
    return jl.laws[request.param]


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["jax_debug_nans", "jax_debug_infs"])
def looked_for(request):
    """JAX looks for NaN, or infinity, in whatever is computed."""
    jax.config.update(request.param, True)
    yield
    jax.config.update(request.param, False)


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


# The programs of XLA, before machine code is made of them, are the same with these, and so are results up to rounding.
UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}
QUICK = programs.QUICK | UNOPTIMISED


def plain_batch(*args):
    """What verbs compile, with powers and logarithms of XLA."""
    with plain():
        return evaluation._batch(*args)


QUICKLY = programs.Program(plain_batch, static=2, cpu_options=QUICK)


@pytest.fixture
def quick(monkeypatch):
    """Calls of laws are compiled quickly, to programs of their own, where speed and the last bits are not looked at."""
    monkeypatch.setattr(evaluation, "_outermost", QUICKLY)


@pytest.fixture
def optimised():
    """Searches and fits run as users run them."""


@pytest.fixture(autouse=True)
def hasty(request, monkeypatch):
    """Searches and fits are compiled quickly, too, and fits with powers of XLA; they run slower for that.

    Not where a test asks for `optimised`; nor with `--every`, and in the examples of the package and the README.
    """
    if "optimised" not in request.fixturenames and request.config.getoption("every") == 1:
        for module, name, program in HASTY:
            monkeypatch.setattr(module, name, program)


HASTY = (
    (starts, "keep_powers", plain),
    (starts, "_compiled", programs.Program(starts._phase, static=2, cpu_options=QUICK | programs.ONE_LOOP)),
    (estimation, "_linearised", programs.Program(estimation._derivatives, static=1, cpu_options=QUICK)),
    (form, "_mixed", programs.Program(form._mixing, static=2, cpu_options=QUICK)),
    (mixture, "_apart", programs.Program(mixture._stepped, static=4, cpu_options=QUICK)),
    (mixture, "_branches", programs.Program(mixture._stepped, static=4, cpu_options=QUICK)),
    (allocation, "_apart", programs.Program(allocation._searched, static=2, cpu_options=QUICK)),
)
