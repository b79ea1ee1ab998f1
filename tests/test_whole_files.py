"""Files that appear when they are whole: several at once, after runs that were killed, and on full disks."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxlaws.files import whole_file


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_several_threads_write_a_file_of_one_name():
    texts = [str(i).encode() * 1000 for i in range(320)]

    def write(text):
        with whole_file("out.csv") as file:
            file.write(text)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, texts))
    assert Path("out.csv").read_bytes() in texts
    assert os.listdir() == ["out.csv"]


KILLED = """
import os
from jaxlaws.files import whole_file
with whole_file("out.csv") as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of files")
def test_what_a_killed_run_left_is_removed_by_the_next_one():
    assert subprocess.run([sys.executable, "-c", KILLED], check=False).returncode == -9
    assert len(os.listdir()) == 1
    for name in (".out.csv.notes.part", ".other.csv.12.part"):  # of others
        Path(name).touch()
    with whole_file("out.csv") as first:
        assert len(os.listdir()) == 3
        with whole_file("out.csv") as second:  # which does not take the first one's part away
            second.write(b"second")
        first.write(b"first")
    assert Path("out.csv").read_bytes() == b"first"
    assert sorted(os.listdir()) == [".other.csv.12.part", ".out.csv.notes.part", "out.csv"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_names_the_file():
    os.symlink("/dev/full", "out.csv")
    for size in (1, 1 << 24):  # told where the file is closed, or before
        with pytest.raises(OSError, match="No space left") as told, whole_file("out.csv") as file:
            file.write(bytes(size))
        assert told.value.filename == "out.csv"
    command = f"{sys.executable} -m jaxlaws"
    for args in ("list", "show sft", "show sft --json"):
        done = subprocess.run(f"{command} {args} > /dev/full", shell=True, capture_output=True)
        assert done.stderr == b"jaxlaws: standard output: No space left on device\n"
        assert done.returncode == 2


ENDED = """
import os, signal
from jaxlaws.files import whole_file
with whole_file("outer.csv"), whole_file("inner.csv"):
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_termination_leaves_nothing_of_a_file_around_another():
    assert subprocess.run([sys.executable, "-c", ENDED], check=False).returncode == 143
    assert os.listdir() == []
