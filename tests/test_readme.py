"""What the README shows is what happens. Its Python is run as a doctest."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import jaxlaws as jl
from jaxlaws.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_table_of_laws_is_up_to_date(capsys):
    assert main(["list", "--markdown"]) == 0
    table = capsys.readouterr().out.strip()
    shown = re.search(r"<!-- laws: [^\n]* -->\n(.*?)\n<!-- end of laws -->", README, re.DOTALL)
    assert shown
    assert shown[1].strip() == table, "replace the table of laws by what `jaxlaws list --markdown` prints"


def test_the_figures_on_speed_are_those_of_the_results():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    pattern = r"<!-- (\w+): the goals in benchmarks/RESULTS.md -->\n(.*?)\n<!-- end of \1 -->"
    shown = dict(re.findall(pattern, README, re.DOTALL))
    assert "speed" in shown
    for table in shown.values():
        assert f"\n\n{table}\n\n" in results, "replace the table by that of the goals"


def on_a_terminal(command, folder):
    """What a command prints on a wide terminal, and on standard error."""
    ours, theirs = pty.openpty()
    args = [sys.executable, "-m", *shlex.split(command)]
    with subprocess.Popen(
        args, cwd=folder, stdout=theirs, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "120", "TERM": "dumb"}
    ) as process:
        os.close(theirs)
        printed = b""
        try:
            while part := os.read(ours, 1 << 16):
                printed += part
        except OSError:  # the end, on Linux
            pass
        os.close(ours)
        printed += process.stderr.read()
    return printed.decode().replace("\r\n", "\n")


def test_the_shell_sessions_are_what_happens(tmp_path):
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        for session in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = session.partition("\n")
            found = on_a_terminal(command, tmp_path)
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
