"""What the README shows is what happens. Its Python is run as a doctest."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import pty
import re
import shlex
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import jaxlaws as jl
from jaxlaws.cli import main
from jaxlaws.testing import check_law

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_lists_of_laws_are_up_to_date(capsys):
    for name, command in {"laws": ["list", "--markdown"], "advice": ["list", "--advice", "--markdown"]}.items():
        assert main(command) == 0
        printed = capsys.readouterr().out.strip()
        shown = re.search(rf"<!-- {name}: [^\n]* -->\n(.*?)\n<!-- end of {name} -->", README, re.DOTALL)
        assert shown
        assert shown[1].strip() == printed, f"replace the {name} by what `jaxlaws {' '.join(command)}` prints"


def test_the_figures_on_speed_are_those_of_the_results():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    pattern = r"<!-- (\w+): the goals in benchmarks/RESULTS.md -->\n(.*?)\n<!-- end of \1 -->"
    shown = dict(re.findall(pattern, README, re.DOTALL))
    assert "speed" in shown
    for table in shown.values():
        assert f"\n\n{table}\n\n" in results, "replace the table by that of the goals"


@pytest.fixture
def on_a_terminal(monkeypatch, tmp_path):
    """A function that runs a command on a wide terminal, and returns what it prints there and on standard error."""

    def run(command):
        program, *args = shlex.split(command)
        assert program == "jaxlaws"
        ours, theirs = pty.openpty()
        err, parts = io.StringIO(), []

        def read():
            with contextlib.suppress(OSError):  # the end, on Linux
                while part := os.read(ours, 1 << 16):
                    parts.append(part)

        reader = threading.Thread(target=read)
        reader.start()
        with (
            open(theirs, "w") as terminal,
            contextlib.redirect_stderr(err),
            contextlib.redirect_stdout(terminal),
            contextlib.suppress(SystemExit),
        ):
            main(args)
        reader.join()
        os.close(ours)
        return b"".join(parts).decode().replace("\r\n", "\n") + err.getvalue()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")
    return run


def write_law(folder):
    """The law of the README, in a file."""
    (text,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "LAW = Law(" in block)
    (folder / "my_law.py").write_text(text)
    return folder / "my_law.py"


def test_the_law_of_ones_own_passes_the_tests(tmp_path):
    check_law(jl.law_in(write_law(tmp_path)))


def test_the_law_of_ones_own_joins_the_others(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    write_law(tmp_path / "my_package")
    (point,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "my_package-1.dist-info").mkdir()
    (tmp_path / "my_package-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: my_package\nVersion: 1\n"
    )
    points = point.replace('[project.entry-points."jaxlaws.laws"]', "[jaxlaws.laws]").replace('"', "")
    (tmp_path / "my_package-1.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    law = jl.laws["my_law"]
    assert law("books", context=1024.0) == np.float32(2.35)
    assert "my_law" in list(jl.laws)
    assert pickle.loads(pickle.dumps(law)) is law
    assert main(["list"]) == 0
    assert "How long a context?" in capsys.readouterr().out
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        monkeypatch.delitem(sys.modules, name)


def test_the_shell_sessions_are_what_happens(tmp_path, on_a_terminal):
    write_law(tmp_path)
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        for session in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = session.partition("\n")
            found = on_a_terminal(command)
            assert [line.rstrip() for line in found.splitlines()] == shown.rstrip().splitlines(), command


def test_the_two_commands_are_those_of_ci():
    commands = re.findall(r"^pip install .*pytest -n auto$|^pip install \. && .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("name", jl.__all__)
def test_every_public_name_is_documented(name):
    thing = getattr(jl, name)
    if name in ("Scalar", "Vector", "Matrix"):
        return
    assert thing.__doc__, name
    if callable(thing) and not isinstance(thing, type) and name not in ("mean",):
        assert "Example:" in thing.__doc__ or name in ("var",), f"{name} has no example"
