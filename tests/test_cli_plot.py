"""The command that draws fits: files of figures, and what it says when something is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

import jaxlaws as jl
import jaxlaws.cli.plot

ABSENT = "figures need matplotlib: pip install 'jaxlaws[plot]'"
N, P = (np.tile(each.ravel(), 2) for each in np.meshgrid([5e8, 7e8, 1e9, 1.6e9, 2.8e9, 4.4e9], [1.0, 2.0, 4.0]))
TABLE = {
    "num_params": N,
    "parallel_size": P,
    "loss": (1.3 + 30 * N**-0.2 - 0.05 * np.log(P)) * (1 + 0.003 * np.random.default_rng(0).normal(size=36)),
    "group": np.repeat(["pile", "_a$b$"], 18),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pyarrow.csv.write_csv(pa.table(TABLE), "runs.csv")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_formats_of_files(run):
    for name in ("a.svg", "b.svg", "a.png", "a.pdf", "b.pdf"):
        assert run("plot", "parallel", "runs.csv", "-o", name, "--group", "pile") == (0, "", "")
    read = lambda name: Path(name).read_bytes()  # noqa: E731
    assert read("a.png").startswith(b"\x89PNG\r\n\x1a\n")
    assert ElementTree.fromstring(read("a.svg")).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"num_params (parameters)" in read("a.svg")
    assert read("a.pdf").startswith(b"%PDF")
    assert read("a.svg") == read("b.svg")
    assert read("a.pdf") == read("b.pdf")


def test_options_reach_the_figure(run, folder, monkeypatch):
    fitted, drawn, fit_runs, plot_fit = [], [], jaxlaws.cli.plot.fit_runs, jl.plots.plot_fit
    monkeypatch.setattr(jaxlaws.cli.plot, "fit_runs", lambda runs, **given: fitted.append(given) or fit_runs(runs))
    monkeypatch.setattr(jl.plots, "plot_fit", lambda *args: drawn.append(args) or plot_fit(*args))
    given = {**TABLE, "corpus": TABLE["group"], "count": (N < 4e9) * 1}
    del given["group"]
    pyarrow.csv.write_csv(pa.table(given), "corpora.csv")
    options = "--group-column corpus --objective huber_log --x parallel_size --level 0.5 --weights count".split()
    text = (folder / "corpora.csv").read_bytes()
    assert run("plot", "parallel", "-", "-o", "a.SVG", *options, "--group", "_a$b$", stdin=text) == (0, "", "")
    assert fitted == [{"objective": "huber_log"}]
    ((fit, *others),) = drawn
    assert others == [["_a$b$"], "parallel_size", 0.5]
    np.testing.assert_allclose(fit.runs.measured[:, 0], TABLE["loss"])
    np.testing.assert_array_equal(fit.runs.weights, N < 4e9)


BAD = {
    "-o a.jpg": "a.jpg: the name of a figure ends in .png, .svg, .pdf",
    "-o -": "-: the name of a figure ends in",
    "": "the following arguments are required: -o/--output",
    "-o a.png --group pil": "unknown group of the fit 'pil'; did you mean 'pile'?",
    "-o a.png --x loss": "parallel has no input 'loss'",
    "-o a.png --level 90": "argument --level: '90' is not between 0 and 1",
    "-o a.png --group-column corpus": "runs.csv: no column 'corpus'",
    "-o none/a.png": "none/a.png: No such file or directory",
}


@pytest.mark.parametrize("options", BAD)
def test_bad_input_of_the_command(run, folder, options):
    (folder / "a.png").write_text("before")
    status, out, err = run("plot", "parallel", "runs.csv", *options.split())
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert BAD[options] in err
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "runs.csv"]
    assert (folder / "a.png").read_text() == "before"


def test_rows_of_bad_tables(run, folder):
    (folder / "bad.csv").write_text("num_params,parallel_size,loss\n1e9,1,2\n1e9,x,2\n")
    status, _, err = run("plot", "parallel", "bad.csv", "-o", "a.png")
    assert (status, err.count("\n")) == (2, 1)
    assert "bad.csv: column 'parallel_size'" in err
    assert "row 2" in err


def test_a_search_that_does_not_converge(run, folder, monkeypatch):
    real = jaxlaws.cli.plot.fit_runs
    lost = {"pile": False, "_a$b$": True}
    fit_runs = lambda *args, **options: dataclasses.replace(real(*args, **options), converged=lost)  # noqa: E731
    monkeypatch.setattr(jaxlaws.cli.plot, "fit_runs", fit_runs)
    status, _, err = run("plot", "parallel", "runs.csv", "-o", "a.png")
    assert (status, err) == (1, "jaxlaws: the search did not converge for 'pile'\n")
    assert (folder / "a.png").exists()
    assert run("plot", "parallel", "runs.csv", "-o", "a.png", "--group", "_a$b$") == (0, "", "")


@pytest.mark.usefixtures("no_matplotlib")
def test_the_command_without_matplotlib(run, folder):
    assert run("plot", "parallel", "runs.csv", "-o", "a.png") == (2, "", f"jaxlaws: {ABSENT}\n")
    assert not (folder / "a.png").exists()
