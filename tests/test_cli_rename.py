"""Tables whose columns have other names than the inputs and outputs of a law."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import jaxlaws as jl

OURS = {"params": "n", "tokens": "D=seen", "loss": "final loss", "group": "paper"}
OPTIONS = [word for ours, theirs in OURS.items() for word in ("--rename", f"{theirs}={ours}")]
LAW = jl.laws["chinchilla"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def runs(names):
    """Runs of both groups, with these names of the columns."""
    random = np.random.default_rng(0)
    params, tokens = np.resize(np.geomspace(1e8, 1e10, 7), 60), 10 ** random.uniform(9, 11, 60)  # each size is held out
    group = np.resize(list(LAW.groups), 60)
    loss = LAW(group, params=params, tokens=tokens) * np.exp(0.01 * random.normal(size=60))
    table = {
        "params": params,
        "tokens": tokens,
        "loss": np.asarray(loss),
        "group": group.tolist(),
        "note": group.tolist(),
    }
    return pa.table({names.get(name, name): values for name, values in table.items()})


def write(form, names=OURS, path="runs"):
    table, path = runs(names), f"{path}.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    elif form == "csv":
        pyarrow.csv.write_csv(table, path)
    else:
        with open(path, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
    return path


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize(
    "words",
    [
        ["predict", "chinchilla", "FILE", "--to", "jsonl"],
        ["evaluate", "chinchilla", "FILE", "--json"],
        ["evaluate", "chinchilla", "FILE", "--by", "params", "--objective", "huber_log", "--json"],
        ["compare", "chinchilla", "FILE", "--json"],
        ["fit", "chinchilla", "FILE", "--objective", "huber_log", "--json"],
    ],
    ids=lambda words: " ".join(words[:1] + words[3:4]),
)
def test_says_the_same_of_renamed_columns(run, form, words):
    ours, theirs = write(form, {}, "ours"), write(form)
    status, plain, _ = run(*[ours if word == "FILE" else word for word in words])
    assert (status, bool(plain)) == (0, True)
    status, renamed, _ = run(*[theirs if word == "FILE" else word for word in words], *OPTIONS)
    assert (status, renamed) == (0, plain)


def test_renames_columns_of_problems(run):
    pa.csv.write_csv(pa.table({"flops": [1e20, 1e21]}), "budgets.csv")
    words = ["--group", "hoffmann2022", "--json"]
    found = run("allocate", "chinchilla", "budgets.csv", "--rename", "flops=budget", *words)
    assert found[:2] == run("allocate", "chinchilla", "budget=1e20,1e21", *words)[:2]
    assert found[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--rename", "m=params"],
            "runs.csv: no column 'm'; the table has 'n', 'D=seen', 'final loss', 'paper', 'note'",
        ),
        (["--rename", "n=params", "--rename", "n=tokens"], "runs.csv: --rename: a column is named twice"),
        (["--rename", "n=params", "--rename", "D=seen=params"], "runs.csv: --rename: a column is named twice"),
        (["--rename", "n=note"], "runs.csv: --rename: there is a column 'note' already"),
        (["--rename", "params"], "argument --rename: 'params' is not of the form OLD=NEW, such as n=params"),
    ],
)
def test_bad_names_get_one_line(run, words, said):
    write("csv")
    status, out, err = run("predict", "chinchilla", "runs.csv", *words)
    assert (status, out) == (2, "")
    assert said in err


def test_two_columns_may_change_names(run):
    write("csv", {"params": "tokens", "tokens": "params"})
    write("csv", {}, "ours")
    swapped = ["--rename", "params=tokens", "--rename", "tokens=params"]
    assert run("evaluate", "chinchilla", "runs.csv", *swapped) == run("evaluate", "chinchilla", "ours.csv")


def test_inputs_on_the_command_line_have_the_names_of_the_law(run):
    words = ["predict", "chinchilla", "n=1e9", "tokens=1e10", "--group", "hoffmann2022", "--rename", "n=params"]
    status, _, err = run(*words)
    assert status == 2
    assert "--rename is for the columns of a file" in err


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_does_not_take_the_place_of_another_column(run, form, command):
    file = write(form, {"params": "n", "note": "params"})
    status, out, err = run(command, "chinchilla", file, "--rename", "n=params")
    assert (status, out) == (2, "")
    assert err == f"jaxlaws: {file}: --rename: there is a column 'params' already\n"


def test_parquet_keeps_what_it_says_of_itself(run):
    table = runs({"params": "n"}).replace_schema_metadata({"made": "by hand"})
    pq.write_table(table, "runs.parquet")
    assert run("predict", "chinchilla", "runs.parquet", "--rename", "n=params", "-o", "out.parquet")[0] == 0
    found = pq.read_schema("out.parquet")
    assert found.metadata[b"made"] == b"by hand"
    assert found.names[0] == "params"


def test_needs_a_file(run):
    status, _, err = run("allocate", "chinchilla", "--budget", "1e20", "--rename", "n=params")
    assert status == 2
    assert "--rename is for the columns of a file" in err
