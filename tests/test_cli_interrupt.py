"""Ctrl-C ends the command without a traceback, from before the package is imported on."""

import os
import signal
import subprocess
import sys

import pytest

import jaxlaws as jl

# Python runs this at its start: it sends an interrupt where a module is imported.
AT_IMPORT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == os.environ["INTERRUPTED"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""
SCRIPT = "import sys\nfrom jaxlaws.cli import main\nsys.exit(main())\n"  # as installers write it


@pytest.mark.parametrize("module", ["jax", "jaxlaws.optimize", "jaxlaws.cli.plot", "jaxlaws.files"])
@pytest.mark.parametrize("way", ["module", "script"])
def test_an_interrupt_is_told_by_the_status_alone(way, module, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(AT_IMPORT)
    (tmp_path / "jaxlaws").write_text(SCRIPT)
    package = os.path.dirname(os.path.dirname(jl.__file__))
    environment = {**os.environ, "INTERRUPTED": module, "PYTHONPATH": f"{tmp_path}:{package}"}
    start = ["-m", "jaxlaws"] if way == "module" else [tmp_path / "jaxlaws"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits what is ignored
    args = [sys.executable, *start, "predict", "sft", "sft_data_size=1e3", "--group", "('gpt2', 'flan')"]
    done = subprocess.run(args, env=environment, cwd=tmp_path, capture_output=True)
    signal.signal(signal.SIGINT, before)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert done.returncode in (130, -signal.SIGINT)


def test_programs_that_import_the_package_are_interrupted_as_ever(tmp_path):
    script = "import signal, jaxlaws; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    subprocess.run([sys.executable, "-c", script], check=True)
    signal.signal(signal.SIGINT, before)
