"""The command, as a user meets it: what it prints, what it writes, and what it says when something is wrong."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sampling import KINDS, columns

import jaxlaws as jl
from jaxlaws.cli import main
from jaxlaws.tables import DataError

PARALLEL = jl.laws["parallel"]
RUNS = {"num_params": [1e9, 2e9, 4e9], "parallel_size": [1, 2, 4], "group": ["pile", "stack", "pile"]}
KIND = pa.dictionary(pa.int8(), pa.string())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test starts in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*args, **options):
    return subprocess.run([sys.executable, "-m", "jaxlaws", *map(str, args)], capture_output=True, **options)


def write(path, table=RUNS):
    """A table in a file, without the code under test."""
    table = pa.table(table)
    if path.endswith(".parquet"):
        pq.write_table(table, path)
    elif path.endswith(".csv"):
        pyarrow.csv.write_csv(table, path)
    else:
        with open(path, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
    return path


def read(path):
    if path.endswith(".parquet"):
        return pq.read_table(path)
    if path.endswith(".csv"):
        return pyarrow.csv.read_csv(path)
    with open(path) as file:
        return pa.Table.from_pylist([json.loads(line) for line in file])


EXPECTED = PARALLEL(
    RUNS["group"], num_params=np.array(RUNS["num_params"]), parallel_size=np.array(RUNS["parallel_size"])
)


# What it does.


@pytest.mark.parametrize("source", ["runs.parquet", "runs.csv", "runs.jsonl"])
@pytest.mark.parametrize("target", ["out.parquet", "out.csv", "out.jsonl"])
def test_predicts_from_any_format_to_any(run, source, target):
    write(source)
    assert run("predict", "parallel", source, "-o", target) == (0, "", "")
    found = read(target)
    assert found.column_names == [*RUNS, "loss"]
    np.testing.assert_allclose(found["loss"], EXPECTED, rtol=1e-15)
    assert found["group"].to_pylist() == RUNS["group"]
    assert set(os.listdir()) == {source, target}


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_standard_input_and_output(run, form):
    data = Path(write(f"runs.{form}")).read_bytes()
    status, out, err = run("predict", "parallel", "-", stdin=data)
    assert (status, err) == (0, "")
    if form == "jsonl":
        found = pa.Table.from_pylist([json.loads(line) for line in out.splitlines()])
    else:
        found = pyarrow.csv.read_csv(io.BytesIO(out.encode()))
    np.testing.assert_allclose(found["loss"], EXPECTED, rtol=1e-15)


def test_parquet_through_a_pipe():
    write("runs.parquet")
    script = "cat runs.parquet | {0} predict parallel - --to parquet | {0} predict parallel - --from parquet --json"
    done = subprocess.run(script.format(f"{sys.executable} -m jaxlaws"), shell=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    np.testing.assert_allclose([row["predicted_loss"] for row in rows], EXPECTED, rtol=1e-15)
    np.testing.assert_allclose([row["loss"] for row in rows], EXPECTED, rtol=1e-15)


@pytest.mark.parametrize("suffix", ["csv.gz", "jsonl.zst", "ndjson.bz2", "json"])
def test_compressed_text(run, suffix):
    write("runs.parquet")
    assert run("predict", "parallel", "runs.parquet", "-o", f"out.{suffix}")[0] == 0
    assert run("predict", "parallel", f"out.{suffix}", "-o", "again.parquet")[0] == 0
    np.testing.assert_allclose(read("again.parquet")["predicted_loss"], EXPECTED, rtol=1e-15)


def test_a_group_for_all_rows_or_a_column_of_groups(run):
    table = {"model": RUNS["group"], "num_params": RUNS["num_params"], "parallel_size": RUNS["parallel_size"]}
    write("runs.csv", table)
    assert run("predict", "parallel", "runs.csv", "--group-column", "model", "-o", "a.parquet")[0] == 0
    np.testing.assert_allclose(read("a.parquet")["loss"], EXPECTED, rtol=1e-15)
    write("runs.csv")
    assert run("predict", "parallel", "runs.csv", "--group", "stack", "-o", "b.parquet")[0] == 0
    x = {name: np.array(RUNS[name], float) for name in ("num_params", "parallel_size")}
    np.testing.assert_allclose(read("b.parquet")["loss"], PARALLEL("stack", x), rtol=1e-15)


def test_gradients_and_elasticities(run):
    write("runs.parquet")
    assert run("predict", "parallel", "runs.parquet", "--gradients", "-o", "a.parquet")[0] == 0
    assert run("gradient", "parallel", "runs.parquet", "-o", "b.parquet")[0] == 0
    assert run("gradient", "parallel", "runs.parquet", "--elasticity", "-o", "c.parquet")[0] == 0
    x = {name: np.array(RUNS[name], float) for name in ("num_params", "parallel_size")}
    for verb, path, prefix in (
        (jl.gradient, "a.parquet", "d_loss_d_"),
        (jl.gradient, "b.parquet", "d_loss_d_"),
        (jl.elasticity, "c.parquet", "elasticity_"),
    ):
        expected = verb(PARALLEL, RUNS["group"], x)
        for name in x:
            np.testing.assert_allclose(read(path)[prefix + name], getattr(expected, name), rtol=1e-14)
    assert "loss" in read("a.parquet").column_names
    assert "loss" not in read("b.parquet").column_names


def test_weights_of_a_law_with_several_outputs(run):
    law = jl.laws["domain_mixture"]
    write("runs.parquet", {name: values.tolist() for name, values in columns(law, 3).items()})
    args = ("gradient", "domain_mixture", "runs.parquet", "--group", "70M")
    assert run(*args, "--weights", "0,0,1,0,0", "-o", "a.parquet")[0] == 0
    table = read("runs.parquet")
    x = np.stack([table[name].to_numpy() for name in law.input_columns], axis=-1)
    expected = jl.gradient(law, "70M", proportions=x, weights=[0, 0, 1, 0, 0]).proportions
    np.testing.assert_allclose(read("a.parquet")["d_loss_d_proportion_domain_2"], np.asarray(expected)[:, 1])
    status, _, err = run(*args, "--weights", "0,1")
    assert (status, err.count("\n")) == (2, 1)
    assert "--weights: domain_mixture has 5 outputs, not 2" in err
    assert run(*args, "--weights", "a,b")[0] == 2


def test_computes_in_float64_or_as_told(run):
    write("runs.parquet", {**RUNS, "num_params": pa.array(RUNS["num_params"], pa.float32())})
    run("predict", "parallel", "runs.parquet", "-o", "a.parquet")
    run("predict", "parallel", "runs.parquet", "-o", "b.parquet", "--float32")
    assert read("a.parquet")["loss"].type == pa.float64()
    assert read("b.parquet")["loss"].type == pa.float32()
    np.testing.assert_allclose(read("b.parquet")["loss"], EXPECTED, rtol=1e-6)


def test_inputs_on_the_command_line_make_a_grid(run):
    status, out, err = run("predict", "parallel", "num_params=1e9,2e9", "p=1,2,4", "group=stack", "--json")
    assert (status, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["num_params"], row["p"]) for row in rows] == [(n, p) for n in (1e9, 2e9) for p in (1, 2, 4)]
    expected = PARALLEL("stack", n=np.array([1e9, 2e9])[:, None], p=[1, 2, 4])
    np.testing.assert_allclose([row["loss"] for row in rows], np.ravel(expected), rtol=1e-15)


def test_shows_the_first_rows_to_people(run):
    status, out, _ = run("example", "parallel", "--rows", 60, "--to", "text")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].split() == ["group", "num_params", "parallel_size"]
    assert len(lines) == 2 + 50 + 1
    assert lines[-1] == "... and 10 more rows; -o FILE keeps them all"


def test_warns_once_of_extrapolation(run):
    write("runs.csv", {**RUNS, "num_params": [1e9, 1e12, 1e13]})
    status, out, err = run("predict", "parallel", "runs.csv")
    assert (status, out.count("\n")) == (0, 4)
    assert err == (
        "jaxlaws: warning: 2 of 3 rows outside the range that parallel was fitted on: "
        "num_params in 2 (fitted on 5.35813e+08 to 4.38385e+09)\n"
    )
    status, out, err = run("predict", "parallel", "runs.csv", "--strict", "-o", "out.csv")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("jaxlaws: runs.csv: 2 of 3 rows outside")
    assert not os.path.exists("out.csv")


def test_evaluates_real_runs(run, law, runs):
    status, out, err = run("evaluate", law.name, runs(law.name), "--json")
    assert (status, err) == (0, "")
    scores = json.loads(out)
    assert scores["r2"] > 0.9
    assert list(scores["outputs"]) == list(law.output_columns)
    status, out, err = run("evaluate", law.name, runs(law.name))
    assert f"{scores['r2']:.6f}" in out


def test_lists_and_shows(run, law):
    status, out, _ = run("list")
    assert status == 0
    assert law.name in out
    listed = json.loads(run("list", "--json")[1])
    assert [entry["name"] for entry in listed] == list(jl.laws)
    shown = json.loads(run("show", law.name, "--json")[1])
    assert shown["formula"] == law.formula
    assert shown["source"]["r2_best"] == law.source.r2_best
    for name, coefs in shown["groups"].items():
        assert jl.as_dict(law.coefs(**coefs)) == jl.as_dict(law.groups[name])
    group = list(law.groups)[-1]
    assert list(json.loads(run("show", law.name, "--group", group, "--json")[1])["groups"]) == [group]
    status, out, _ = run("show", law.name)
    assert law.formula in out
    assert all(name in out for name in law.groups)
    for v in jl.variables(law.inputs):
        assert v.description in out
        assert v.unit in out


def test_examples_are_within_the_range_and_repeatable(run, law):
    assert run("example", law.name, "--rows", 1000, "-o", "a.parquet")[0] == 0
    assert run("example", law.name, "--rows", 1000, "-o", "b.parquet")[0] == 0
    assert run("example", law.name, "--rows", 1000, "-o", "c.parquet", "--seed", 1)[0] == 0
    assert read("a.parquet").equals(read("b.parquet"))
    assert not read("a.parquet").equals(read("c.parquet"))
    status, _, err = run("predict", law.name, "a.parquet", "-o", "out.parquet")
    assert status == 0
    mixture = any(v.total is not None for v in jl.variables(law.inputs))
    assert ("warning" in err) == mixture  # few mixtures lie in so narrow a box
    assert set(read("a.parquet")["group"].to_pylist()) == set(law.groups)


def test_help_shows_an_example_of_every_command(run):
    status, out, _ = run("--help")
    assert status == 0
    assert "JAXLAWS_CACHE" in out
    for name in ("list", "show", "predict", "gradient", "evaluate", "example", "fit"):
        assert name in out
        status, text, _ = run(name, "--help")
        assert status == 0
        assert f"examples:\n  jaxlaws {name}" in text
    assert run("--version")[1] == f"jaxlaws {jl.__version__}\n"


# What it says when something is wrong: one line, exit status 2, and nothing half-written.


def bad_files():
    good = {"num_params": [1e9, 2e9, 4e9], "parallel_size": [1.0, 2.0, 4.0]}
    return {
        "no such file": ("runs.csv", None, "runs.csv: No such file or directory"),
        "a folder": ("folder.csv", "folder", "folder.csv: a folder saved by Hugging Face datasets has"),
        "unknown suffix": ("runs.xlsx", b"x", "runs.xlsx: .*suffix: .parquet, .pq, .csv"),
        "empty CSV": ("runs.csv", b"", "runs.csv: the file is empty"),
        "empty JSON": ("runs.jsonl", b"", "runs.jsonl: the file is empty"),
        "empty Parquet": ("runs.parquet", b"", "runs.parquet: .*Parquet"),
        "only a header": ("runs.csv", b"num_params,parallel_size\n", "runs.csv: the table has no rows"),
        "not Parquet": ("runs.parquet", b"num_params,parallel_size\n1,2\n", "runs.parquet: .*Parquet"),
        "ragged CSV": ("runs.csv", b"num_params,parallel_size\n1,2\n3\n", "runs.csv: .*Expected 2 columns, got 1"),
        "not JSON": ("runs.jsonl", b"num_params,parallel_size\n1,2\n", "runs.jsonl: JSON parse error"),
        "a JSON list": (
            "runs.json",
            b'[{"num_params": 1}]',
            "runs.json: this is a JSON array; a table in JSON lines has",
        ),
        "missing column": ("runs.csv", {"num_params": [1e9]}, r"no column 'parallel_size' .nor .*the table has 'num_"),
        "text": (
            "runs.csv",
            b"num_params,parallel_size\n1e9,1\n2e9,two\n",
            "'parallel_size' must hold numbers: 'two' in row 2$",
        ),
        "text in Parquet": ("runs.parquet", {**good, "num_params": ["a", "b", "c"]}, "'num_params' must hold numbers"),
        "null": ("runs.parquet", {**good, "num_params": [1e9, None, 1e9]}, "'num_params' has no value: row 2"),
        "null in CSV": ("runs.csv", b"num_params,parallel_size\n1e9,1\n,1\n", "'num_params' has no value: row 2"),
        "NaN": ("runs.parquet", {**good, "num_params": [np.nan, 1e9, np.nan]}, "NaN.*rows 1, 3"),
        "unknown group": (
            "runs.csv",
            {**good, "group": ["pile", "pil", "pile"]},
            "row 2: unknown .*did you mean 'pile'",
        ),
        "no group": (
            "runs.csv",
            good,
            "runs.csv: parallel has 2 groups, and the table no column 'group': choose one, such as --group pile",
        ),
        "a column twice": ("runs.csv", b"num_params,num_params\n1,2\n", "2 columns are called 'num_params'"),
        "semicolons": ("runs.csv", b"num_params;parallel_size\n1;2\n", "separated by ';', where a comma is needed"),
        "a typing error": ("runs.csv", b"num_param,parallel_size\n1,2\n", "did you mean 'num_param'"),
        "UTF-16": ("runs.csv", "num_params,parallel_size\n1,2\n".encode("utf-16"), "runs.csv: "),
        "not compressed": ("runs.csv.gz", b"num_params,parallel_size\n1,2\n", "runs.csv.gz: "),
        "cut compressed": ("runs.csv.gz", gzip.compress(b"num_params,parallel_size\n" * 99)[:40], "runs.csv.gz: "),
        "many bad": (
            "runs.csv",
            b"num_params,parallel_size\n" + b"x,1\n1e9,1\n" * 7,
            "'x' in row 1, 'x' in row 3, 'x' in row 5, 'x' in row 7, 'x' in row 9 and 2 more",
        ),
    }


@pytest.mark.parametrize("case", list(bad_files()))
@pytest.mark.parametrize("output", ["out.parquet", "-"])
def test_bad_files(run, case, output):
    path, content, words = bad_files()[case]
    if content == "folder":
        os.mkdir(path)
    elif isinstance(content, bytes):
        Path(path).write_bytes(content)
    elif content is not None:
        write(path, content)
    before = os.listdir()
    status, out, err = run("predict", "parallel", path, "-o", output)
    assert (status, out) == (2, "")
    assert err.startswith("jaxlaws: ")
    assert err.count("\n") == 1
    assert re.search(words, err), err
    assert os.listdir() == before


def test_a_truncated_parquet_file(run):
    write("runs.parquet")
    whole = Path("runs.parquet").read_bytes()
    for size in (4, 100, len(whole) - 1):
        Path("cut.parquet").write_bytes(whole[:size])
        status, out, err = run("predict", "parallel", "cut.parquet", "-o", "out.parquet")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("jaxlaws: cut.parquet: ")
        assert not os.path.exists("out.parquet")


def test_a_damaged_parquet_file(run):
    write("runs.parquet", {"num_params": np.random.default_rng(0).random(10_000) * 1e9, "parallel_size": [2] * 10_000})
    damaged = bytearray(Path("runs.parquet").read_bytes())
    damaged[1000:3000] = bytes(2000)
    Path("runs.parquet").write_bytes(damaged)
    status, out, err = run("predict", "parallel", "runs.parquet", "--group", "pile", "-o", "out.parquet")
    if status == 0:  # zeros can be data
        return
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert os.listdir() == ["runs.parquet"]


def test_proportions_that_do_not_sum_to_1(run):
    names = jl.laws["domain_mixture"].input_columns
    write("runs.csv", {name: [0.2] * 8 + [0.3, 0.2] for name in names})
    status, _, err = run("predict", "domain_mixture", "runs.csv", "--group", "70M")
    assert status == 2
    assert "must sum to 1, and the sum is 1.5 in row 9" in err


def test_a_value_where_the_law_has_no_floor(run):
    names = jl.laws["domain_mixture"].input_columns
    write("runs.csv", {name: [0.6 if name == names[0] else 0.1] * 7 for name in names})
    text = Path("runs.csv").read_text().replace("0.6", "-0.6")
    Path("runs.csv").write_text(text)
    status, _, err = run("predict", "domain_mixture", "runs.csv", "--group", "70M")
    assert status == 2
    assert "'proportion_domain_1' must be greater than -1e-06: rows 1, 2, 3, 4, 5 and 2 more" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("predict", "chinchila", "x.csv"), "unknown law 'chinchila'; did you mean 'chinchilla'?"),
        (("show", "chinchila"), "unknown law 'chinchila'; did you mean 'chinchilla'?"),
        (("show", "parallel", "--group", "pil"), "unknown group of parallel 'pil'; did you mean 'pile'?"),
        (("predict", "parallel", "n=1", "p=1", "--group", "pil"), "unknown group of parallel 'pil'"),
        (("predict", "parallel", "n=1", "p=1", "--group-column", "model"), "no column 'model'; the table has 'n', 'p'"),
        (("predict", "parallel", "n=1", "p=1", "--group", "pile", "-o", "out.xls"), "out.xls: the format of a file"),
        (("predict", "parallel", "n=1", "p=x", "--group", "pile"), "'p=x': p takes numbers, such as 7e9"),
        (("predict", "chinchilla", "params=7B", "tokens=1e12"), "'params=7B': params takes numbers, such as 7e9"),
        (("predict", "parallel", "n=1", "p=1", "lr=3"), "inputs: unknown name 'lr'; parallel takes num_params, paral"),
        (("gradient", "parallel", "n=1", "parallel_sise=1"), "unknown name 'parallel_sise'; did you mean 'parallel_s"),
        (("predict", "vocab", "character=5e12", "vocab_size=3e4"), "name 'character'; did you mean 'characters'"),
        (("predict", "parallel", "n=1"), "inputs: no parallel_size (parallel streams); give parallel_size=VALUE, too"),
        (("predict", "parallel", "n=1", "p=1"), "inputs: parallel has 2 groups: choose one, such as --group pile"),
        (("predict", "sft", "sft_data_size=1"), "inputs: sft has 42 groups: choose one, such as --group '("),
        (("mixture", "domain_mixture", "uper_1=1"), "unknown name 'uper_1'; did you mean 'upper_1'?"),
        (("predict", "parallel", "n=1", "n=2", "--group", "pile"), "'n' is given twice"),
        (("predict", "parallel", "n=1", "p", "--group", "pile"), "'p' is not of the form"),
        (("predict", "parallel", "n=nan", "p=1", "--group", "pile"), "'n' is not a number (NaN): row 1"),
        (("predict", "parallel", "a.csv", "b.csv"), "'b.csv' is a second one"),
        (("predict", "parallel"), "the following arguments are required: FILE"),
        (("predict", "parallel", "x.csv", "--group", "a", "--group-column", "b"), "not allowed with"),
        (("predict", "parallel", "x.csv", "--to", "xls"), "invalid choice: 'xls'"),
        (("frobnicate",), "invalid choice: 'frobnicate'"),
        ((), "required: COMMAND"),
        (("evaluate", "parallel", "n=1", "--group", "pile"), "inputs: no column 'loss'"),
        (("evaluate", "parallel", "n=1", "p=1", "--group", "pile"), "unrecognized arguments: p=1"),
        (("predict", "parallel", "n=1", "p=1", "--group", "pile", "--weights", "1"), "--gradients is missing"),
        (
            ("gradient", "parallel", "n=1", "p=1", "--group", "pile", "--weights", "1,2"),
            "has one output, and takes none",
        ),
        (("gradient", "parallel", "n=1", "p=1", "--group", "pile", "--weights", "1"), "has one output, and takes none"),
        (("example", "parallel", "--rows", "0"), "'0' is not a number of rows"),
        (("example", "parallel", "--rows", "-1"), "-1"),
    ],
)
def test_bad_arguments(run, args, words):
    status, out, err = run(*args)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert words in err
    assert os.listdir() == []


def test_errors_count_rows_over_all_batches(run, monkeypatch):
    from jaxlaws import files

    monkeypatch.setattr(files, "BATCH_ROWS", 10)
    write("runs.parquet", {"n": [1e9] * 95 + [None], "p": [1] * 96})
    status, _, err = run("predict", "parallel", "runs.parquet", "--group", "pile", "-o", "out.csv")
    assert status == 2
    assert "row 96" in err
    assert os.listdir() == ["runs.parquet"]


def write_rows(path, rows, **options):
    """A table of rows that all differ, in order."""
    pq.write_table(pa.table({"n": np.linspace(1e9, 2e9, rows), "p": np.ones(rows)}), path, **options)


def test_rows_keep_their_order_over_batches(run, monkeypatch):
    from jaxlaws import files

    monkeypatch.setattr(files, "BATCH_ROWS", 1024)
    write_rows("runs.parquet", 50_000, row_group_size=700)
    assert run("predict", "parallel", "runs.parquet", "--group", "pile", "-o", "out.parquet")[0] == 0
    found = read("out.parquet")
    assert found["n"].equals(read("runs.parquet")["n"])
    np.testing.assert_allclose(found["loss"], PARALLEL("pile", n=found["n"].to_numpy(), p=1.0), rtol=1e-15)
    assert pq.read_metadata("out.parquet").num_row_groups > 40


@pytest.mark.parametrize("output", ["out.parquet", "-"])
def test_a_file_whose_end_is_damaged(run, monkeypatch, output):
    from jaxlaws import files

    monkeypatch.setattr(files, "BATCH_ROWS", 1000)
    write_rows("runs.parquet", 5000, row_group_size=1000, use_dictionary=False, compression="gzip")
    last = pq.read_metadata("runs.parquet").row_group(4).column(0)
    damaged = bytearray(Path("runs.parquet").read_bytes())
    middle = last.data_page_offset + last.total_compressed_size // 2
    damaged[middle : middle + 50] = bytes(50)
    Path("runs.parquet").write_bytes(damaged)
    status, _, err = run("predict", "parallel", "runs.parquet", "--group", "pile", "-o", output)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("jaxlaws: runs.parquet: ")
    assert os.listdir() == ["runs.parquet"]


def test_items_made_ahead():
    from jaxlaws.files import ahead

    made = []

    def items():
        for i in range(5):
            made.append(i)
            yield i
        raise DataError("the end")

    threads = threading.active_count()
    used = []

    def use():
        with ahead(items()) as found:
            for item in found:
                time.sleep(0.02)
                assert len(made) <= item + 2  # one ahead, and no more
                used.append(item)

    with pytest.raises(DataError, match="the end"):
        use()
    assert used == [0, 1, 2, 3, 4]
    with contextlib.suppress(KeyError), ahead(items()) as found:
        raise KeyError(next(found))
    assert threading.active_count() == threads


def test_the_output_that_was_there_survives_an_error(run):
    Path("out.parquet").write_text("precious")
    write("runs.parquet", {"n": [1e9, None], "p": [1, 1]})
    assert run("predict", "parallel", "runs.parquet", "--group", "pile", "-o", "out.parquet")[0] == 2
    assert Path("out.parquet").read_text() == "precious"


def test_output_may_replace_its_input_and_keeps_its_mode_and_link(run):
    write("runs.parquet")
    os.chmod("runs.parquet", 0o640)
    os.symlink("runs.parquet", "link.parquet")
    assert run("predict", "parallel", "link.parquet", "-o", "link.parquet")[0] == 0
    np.testing.assert_allclose(read("runs.parquet")["loss"], EXPECTED, rtol=1e-15)
    assert os.path.islink("link.parquet")
    assert os.stat("runs.parquet").st_mode & 0o777 == 0o640


def test_output_to_a_device_writes_to_it(run):
    write("runs.parquet")
    assert run("predict", "parallel", "runs.parquet", "-o", "/dev/null", "--to", "csv")[0] == 0
    assert not os.path.isfile("/dev/null")


def test_a_full_disk(run):
    write("runs.csv")
    status, out, err = run("predict", "parallel", "runs.csv", "-o", "/dev/full", "--to", "csv")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "No space left on device" in err
    assert "/dev/full" in err


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_a_file_that_cannot_grow(form):
    write(
        "runs.parquet", {"num_params": np.random.default_rng(0).random(200_000) * 1e9, "parallel_size": [2] * 200_000}
    )

    limited = (
        "import resource, sys; from jaxlaws.cli import main; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20));"
        "sys.exit(main())"
    )
    args = ["predict", "parallel", "runs.parquet", "--group", "pile", "-o", f"out.{form}"]
    done = subprocess.run([sys.executable, "-c", limited, *args], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1), done.stderr
    assert b"out." in done.stderr
    assert b"File too large" in done.stderr
    assert os.listdir() == ["runs.parquet"]


def test_no_permission():
    write("runs.parquet")
    os.mkdir("closed")
    os.chmod("closed", 0o555)
    os.chmod("runs.parquet", 0o000)
    plain = []  # even root must obey
    if os.geteuid() == 0:
        plain = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if not shutil.which("setpriv"):
            pytest.skip("root may read everything")

    def run(*args):
        done = subprocess.run(
            [*plain, sys.executable, "-m", "jaxlaws", "predict", "parallel", *args], capture_output=True
        )
        return done.returncode, done.stderr.decode()

    assert run("runs.parquet", "-o", "out.csv") == (2, "jaxlaws: runs.parquet: Permission denied\n")
    point = ("n=1e9", "p=1", "--group", "pile")
    assert run(*point, "-o", "closed/out.csv") == (2, "jaxlaws: closed/out.csv: Permission denied\n")


@pytest.mark.parametrize(
    "moment",
    [
        "files.open = lambda *args, opened=open: (opened(*args), os.kill(os.getpid(), 15))[0]",
        "files.os.replace = lambda *args, replace=os.replace: (os.kill(os.getpid(), 15), replace(*args))",
    ],
    ids=["just opened", "just closed"],
)
def test_a_termination_at_either_end_of_writing_leaves_nothing(moment):
    program = f"""
import os
from jaxlaws import files
{moment}
with files.open_writer("out.csv", "csv"):
    pass
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 143
    assert os.listdir() == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("source", "target"), [("runs.csv", "out.jsonl"), ("runs.parquet", "out.parquet"), ("runs.parquet", "out.jsonl")]
)
def test_an_interrupted_run_leaves_nothing(how, source, target):
    command("example", "parallel", "--rows", 3_000_000, "-o", source)
    args = [sys.executable, "-m", "jaxlaws", "predict", "parallel", source, "-o", target]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits what is ignored
    with subprocess.Popen(args, stderr=subprocess.PIPE) as process:
        signal.signal(signal.SIGINT, before)
        while process.poll() is None and not any(name.endswith(".part") for name in os.listdir()):
            time.sleep(0.01)
        process.send_signal(how)
        sent = time.monotonic()
        assert process.stderr.read() == b""
    assert time.monotonic() - sent < 5
    assert process.returncode in (130, 143)
    assert os.listdir() == [source]


def test_an_interrupt_while_a_table_is_read_ahead(run, monkeypatch):
    """The interrupt comes while a thread reads: the run ends after that read, with nothing left of it."""
    from jaxlaws import files

    monkeypatch.setattr(files, "BATCH_ROWS", 100)
    write_rows("runs.parquet", 5000)
    reading, ended = threading.Event(), []
    joined = files._joined

    def slow(batches):
        for i, table in enumerate(joined(batches)):
            if i == 3:
                reading.set()
                time.sleep(0.5)
                ended.append(i)
            yield table

    def interrupt():
        reading.wait()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(files, "_joined", slow)
    sender = threading.Thread(target=interrupt)
    sender.start()
    before = threading.active_count()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status, out, err = run("predict", "parallel", "runs.parquet", "--group", "pile", "-o", "out.parquet")
    finally:
        signal.signal(signal.SIGINT, handler)
    sender.join()
    assert (status, out, err) == (130, "", "")
    assert ended == [3]
    assert os.listdir() == ["runs.parquet"]
    assert threading.active_count() < before


def test_a_stream_can_be_interrupted_while_it_says_nothing():
    args = [sys.executable, "-m", "jaxlaws", "predict", "parallel", "-", "--group", "pile", "-o", "out.csv"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(args, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        signal.signal(signal.SIGINT, before)
        process.stdin.write(b"num_params,parallel_size\n1e9,1\n")
        process.stdin.flush()
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        assert process.stderr.read() == b""
    assert os.listdir() == []


def test_a_reader_that_has_seen_enough():
    write("runs.parquet", {"num_params": [1e9] * 500_000, "parallel_size": [2] * 500_000})
    script = f"{sys.executable} -m jaxlaws predict parallel runs.parquet --group pile | head -2"
    done = subprocess.run(script, shell=True, capture_output=True)
    assert (done.stderr, done.stdout.count(b"\n")) == (b"", 2)


# Streams.


def test_types_of_a_text_file_are_those_of_its_first_block(run, monkeypatch):
    from jaxlaws import files

    monkeypatch.setattr(files, "BLOCK_BYTES", 1 << 10)
    lines = ["num_params,parallel_size,id,note,empty"] + [f"1000000000,1,{i},a," for i in range(200)]
    Path("runs.csv").write_text("\n".join([*lines, "1.5e9,2.5,200,b,c", ""]))
    assert run("predict", "parallel", "runs.csv", "--group", "pile", "-o", "out.parquet")[0] == 0
    found = read("out.parquet")
    assert found["num_params"][200].as_py() == 1.5e9
    assert found["id"].to_pylist() == list(range(201))
    assert found["empty"][200].as_py() == "c"
    rows = [{"num_params": 10**9, "parallel_size": 1, "note": None}] * 200
    rows.append({"num_params": 1.5e9, "parallel_size": 2.5, "note": "b"})
    Path("runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("predict", "parallel", "runs.jsonl", "--group", "pile", "-o", "again.parquet")[0] == 0
    assert read("again.parquet")["num_params"][200].as_py() == 1.5e9
    assert read("again.parquet")["note"][200].as_py() == "b"
    Path("runs.csv").write_text("\n".join([*lines, "1.5e9,2.5,x,b,c", ""]))
    status, _, err = run("predict", "parallel", "runs.csv", "--group", "pile", "-o", "again.parquet")
    assert (status, err.count("\n")) == (2, 1)
    assert "column 'id' is of another type in line 202 than in the first lines" in err
    assert run("predict", "parallel", "runs.csv", "--group", "pile", "-o", "out.csv")[0] == 0


def test_csv_to_csv_keeps_every_other_column_to_the_letter(run):
    header = "num_params,parallel_size,group,run_id,commit,version,note"
    rows = ["1e9,1,pile,007,0x1f,1.10,", "2000000000,2,pile,12e4567,true,NA,a b"]
    Path("runs.csv").write_text("\n".join([header, *rows, ""]))
    status, out, _ = run("predict", "parallel", "runs.csv")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == header + ",loss"
    assert [line.rpartition(",")[0] for line in lines[1:]] == rows
    Path("runs.csv").write_text("\n".join([header, *rows, '1e9,1,pile,1,1,1,"a ""b"", c"', ""]))
    assert run("predict", "parallel", "runs.csv", "-o", "out.csv")[0] == 0
    found = pyarrow.csv.read_csv(
        "out.csv", convert_options=pyarrow.csv.ConvertOptions(column_types={"run_id": pa.string()})
    )
    assert found["note"].to_pylist() == ["", "a b", 'a "b", c']
    assert found["run_id"].to_pylist() == ["007", "12e4567", "1"]


def test_csv_to_parquet_types_what_loses_nothing(run):
    header = "num_params,parallel_size,group,number,count,id,hex,hash,flag,day"
    rows = ["1e9,1,pile,0.5,3,007,0x1f,12e4567,true,2026-01-02", "1e9,1,pile,1e-3,40,8,0x20,1,false,2026-01-03"]
    Path("runs.csv").write_text("\n".join([header, *rows, ""]))
    assert run("predict", "parallel", "runs.csv", "-o", "out.parquet")[0] == 0
    types = {field.name: str(field.type) for field in read("out.parquet").schema}
    assert types == {
        **dict.fromkeys(["num_params", "parallel_size", "number", "loss"], "double"),
        **dict.fromkeys(["group", "id", "hex", "hash"], "string"),
        "count": "int64",
        "flag": "bool",
        "day": "date32[day]",
    }


@pytest.mark.parametrize("compression", [gzip.compress, bz2.compress, pa.Codec("zstd").compress])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_compressed_standard_input(run, form, compression):
    plain = Path(write(f"runs.{form}")).read_bytes()
    status, out, err = run("predict", "parallel", "-", stdin=bytes(compression(plain)))
    assert (status, err) == (0, "")
    assert out == run("predict", "parallel", f"runs.{form}")[1]


def test_a_group_for_all_rows_that_contradicts_a_column_is_told(run):
    write("runs.csv")
    status, _, err = run("predict", "parallel", "runs.csv", "--group", "stack")
    assert status == 0
    assert err == "jaxlaws: warning: 'stack' was used for all rows, and 2 have another group in column 'group'\n"


def test_a_group_column_that_is_not_used_may_hold_anything(run):
    write("runs.parquet", {**RUNS, "group": [{"a": 1}] * 3})
    assert run("predict", "parallel", "runs.parquet", "--group", "pile", "-o", "out.parquet") == (0, "", "")
    write("runs.parquet", {**RUNS, "group": pa.array(RUNS["group"]).dictionary_encode()})
    assert "2 have another group" in run("predict", "parallel", "runs.parquet", "--group", "stack")[2]


def test_small_row_groups_are_put_together(run):
    pq.write_table(pa.table({"n": np.full(50_000, 1e9), "p": np.ones(50_000)}), "runs.parquet", row_group_size=100)
    assert run("predict", "parallel", "runs.parquet", "--group", "pile", "-o", "out.parquet")[0] == 0
    assert pq.ParquetFile("out.parquet").metadata.num_row_groups == 1
    assert len(read("out.parquet")) == 50_000


def test_groups_are_a_dictionary_in_the_file_and_text_to_its_readers(run):
    schema = pa.schema(
        {"n": pa.float64(), "p": pa.float32(), "group": pa.string(), "day": pa.date32(), "kind": KIND},
        {"made": "by hand"},
    )
    names = ["pile", "stack", "stack", "pile"] * 500
    runs = {"n": [1e9] * 2000, "p": [1] * 2000, "group": names, "day": [1] * 2000, "kind": names}
    # Names come in another order in each row group, which are put together.
    pq.write_table(pa.table(runs, schema), "runs.parquet", row_group_size=50)
    assert run("predict", "parallel", "runs.parquet", "-o", "out.parquet")[0] == 0
    found = read("out.parquet")
    assert found.schema.equals(schema.append(pa.field("loss", pa.float64())), check_metadata=True)
    assert found["group"].to_pylist() == found["kind"].to_pylist() == names
    group = pq.read_metadata("out.parquet").row_group(0).column(2)
    assert (group.statistics.min, group.statistics.max) == ("pile", "stack")
    assert group.total_uncompressed_size < 1000  # a bit a row
    import pandas
    import polars

    assert polars.read_parquet("out.parquet")["group"].dtype == polars.String
    assert pandas.read_parquet("out.parquet")["group"].tolist() == names


def test_what_csv_cannot_hold(run):
    write("runs.jsonl", {**RUNS, "config": [{"lr": 1}] * 3})
    status, out, err = run("predict", "parallel", "runs.jsonl", "--to", "csv")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "CSV cannot hold column 'config' of type struct<lr: int64>; Parquet and JSON lines can" in err
    assert run("predict", "parallel", "runs.jsonl", "-o", "out.parquet")[0] == 0


def test_json_has_no_infinity(run):
    write("runs.csv", {**RUNS, "num_params": [1e9, float("inf"), 1e9]})
    rows = [json.loads(line) for line in run("predict", "parallel", "runs.csv", "--json")[1].splitlines()]
    assert rows[1]["num_params"] is None
    assert rows[1]["loss"] > 0
    write("runs.csv", {**RUNS, "loss": [2.0, 2.0, 2.0]})
    scores = json.loads(run("evaluate", "parallel", "runs.csv", "--json")[1])
    assert scores["r2"] is scores["nmse"] is None


def test_programs_are_kept_from_run_to_run(folder):
    point = ("predict", "parallel", "n=1e9", "p=1", "--group", "pile", "--json")

    def run(**settings):
        env = {key: value for key, value in os.environ.items() if not key.startswith(("JAX", "XDG_"))}
        done = command(*point, env={**env, "HOME": str(folder / "home"), **settings})
        assert (done.returncode, done.stdout.count(b"\n"), done.stderr) == (0, 1, b"")
        return done.stdout

    def entries():
        kept = Path("home/.cache/jaxlaws")
        return {path.name: (path.stat().st_ino, path.read_bytes()) for path in kept.iterdir()}

    first = run()
    kept = entries()
    assert any(name.endswith(".program") for name in kept)
    assert run(XDG_CACHE_HOME="relative") == first  # which is to be ignored
    assert entries() == kept, "found again"
    for name in kept:
        Path("home/.cache/jaxlaws", name).write_bytes(b"damaged")
    assert run() == first
    again = entries()
    assert again.keys() == kept.keys()
    assert all(data != b"damaged" for _, data in again.values())
    run(XDG_CACHE_HOME=str(folder / "b"), JAX_COMPILATION_CACHE_DIR=str(folder / "c"))
    run(XDG_CACHE_HOME=str(folder / "d"), JAX_ENABLE_COMPILATION_CACHE="false")
    run(XDG_CACHE_HOME=str(folder / "e"), JAXLAWS_CACHE="")
    Path("file").touch()
    run(JAXLAWS_CACHE=str(folder / "file"))  # where nothing can be kept
    run(JAXLAWS_CACHE=str(folder / "f"))
    assert os.listdir("f")
    assert sorted(os.listdir()) == ["c", "f", "file", "home"]
    assert entries() == again


def test_the_command_leaves_settings_of_jax_alone(run):
    before = jax.config.jax_compilation_cache_dir
    assert run("list")[0] == 0
    assert jax.config.jax_compilation_cache_dir is before is None


def test_a_run_loads_no_package_that_it_does_not_need():
    write("runs.parquet")
    script = (
        "import sys; from jaxlaws.cli import main; main(['predict', 'parallel', 'runs.parquet', '-o', 'out.parquet']);"
        "print({'pandas', 'polars', 'rich.console'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_closed_or_full_standard_output():
    for shell in ("{} list >&-", "{} predict parallel n=1e9 p=1 --group pile > /dev/full"):
        done = subprocess.run(shell.format(f"{sys.executable} -m jaxlaws"), shell=True, capture_output=True)
        assert (done.returncode, done.stderr.count(b"\n")) == (2, 1), done.stderr
        assert b"tandard output" in done.stderr


def test_an_error_never_aborts_the_process():
    Path("runs.csv").write_text("num_params,parallel_size\n1e9,1\n1e9\n")
    for _ in range(8):
        done = command("predict", "parallel", "runs.csv")
        assert (done.returncode, done.stderr.count(b"\n")) == (2, 1), done.stderr


def peak_memory(*args):
    """Peak memory of a run of the command, in MiB."""
    script = (  # a small process in between, since the peak of a child begins at that of its parent
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    args = [sys.executable, "-c", script, sys.executable, "-m", "jaxlaws", *map(str, args)]
    return int(subprocess.run(args, check=True, capture_output=True).stdout) / 1024


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_memory_does_not_grow_with_the_file(form):
    command("example", "parallel", "--rows", 12_000_000, "-o", f"in.{form}")  # whole, 600 MiB and more
    assert peak_memory("predict", "parallel", f"in.{form}", "-o", f"out.{form}") < 1000


def test_memory_of_wide_rows():
    rows = 300_000  # whole, 1.2 GB several times over
    script = f"""
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
text = pa.array([chr(97 + i) * 4000 for i in range(20)]).take(pa.array(np.arange({rows}) % 20))
pq.write_table(pa.table({{"n": np.full({rows}, 1e9), "p": np.ones({rows}), "text": text}}), "in.parquet")
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert peak_memory("predict", "parallel", "in.parquet", "--group", "pile", "-o", "out.parquet") < 1400
    command("example", "domain_mixture", "--rows", 400_000, "-o", "in.parquet")
    assert peak_memory("predict", "domain_mixture", "in.parquet", "--gradients", "-o", "out.jsonl") < 1400


def test_a_stream_that_failed_does_not_look_whole():
    runs = pa.table({"n": np.append(np.full(3_000_000, 1e9), np.nan), "p": np.ones(3_000_001)})
    pq.write_table(runs, "runs.parquet", row_group_size=100_000)
    done = command("predict", "parallel", "runs.parquet", "--group", "pile", "--to", "parquet")
    assert done.returncode == 2
    assert len(done.stdout) > 1000
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(io.BytesIO(done.stdout))


def test_output_to_a_pipe():
    script = "{} predict parallel n=1e9 p=1 --group pile -o /dev/stdout --to csv | cat"
    done = subprocess.run(script.format(f"{sys.executable} -m jaxlaws"), shell=True, capture_output=True)
    assert (done.stdout.count(b"\n"), done.stderr) == (2, b"")


def test_parquet_from_a_pipe(run):
    write("runs.parquet")
    os.mkfifo("pipe.parquet")
    with subprocess.Popen("cat runs.parquet > pipe.parquet", shell=True):
        assert run("predict", "parallel", "pipe.parquet", "-o", "out.csv")[0] == 0
    np.testing.assert_allclose(read("out.csv")["loss"], EXPECTED, rtol=1e-15)


def test_a_path_may_hold_an_equals_sign(run):
    os.mkdir("group=pile")
    write("group=pile/part.parquet")
    assert run("predict", "parallel", "group=pile/part.parquet", "-o", "out.csv")[0] == 0


def test_float32_must_hold_the_values(run):
    write("runs.csv", {**RUNS, "num_params": [1e9, 1e39, 1e40]})
    status, _, err = run("predict", "parallel", "runs.csv", "--float32")
    assert (status, err) == (2, "jaxlaws: runs.csv: column 'num_params' is too large for float32: rows 2, 3\n")


def test_a_byte_order_mark_is_no_part_of_a_name(run):
    for name, data in (("runs.csv", "num_params,parallel_size\n1e9,1\n"), ("runs.jsonl", '{"n": 1e9, "p": 1}\n')):
        Path(name).write_bytes(b"\xef\xbb\xbf" + data.encode())
        assert run("predict", "parallel", name, "--group", "pile")[0] == 0
        assert run("predict", "parallel", "-", "--group", "pile", stdin=Path(name).read_bytes())[0] == 0


def test_progress_on_a_terminal():
    import pty

    command("example", "parallel", "--rows", 4_000_000, "-o", "runs.csv")
    ours, theirs = pty.openpty()
    args = [sys.executable, "-m", "jaxlaws", "predict", "parallel", "runs.csv", "-o", "out.parquet"]
    shown = b""
    with subprocess.Popen(args, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):
            while part := os.read(ours, 1 << 16):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    assert re.search(rb"%.*rows", shown)


WORDS = st.sampled_from(
    "parallel sft moe nope runs.csv none.csv - n=1e9 p=2 p=x = --group pile --json --to csv parquet text "
    "-o out.csv --strict --float32 --weights 1 --rows 3 --seed -1 --gradients --elasticity --from jsonl ".split(" ")
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["list", "show", "predict", "gradient", "evaluate", "example", ""]), st.lists(WORDS, max_size=7))
def test_any_arguments_end_well(name, words):
    write("runs.csv")
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(Path("runs.csv").read_bytes()))))
        try:
            status = main([name, *words])
        except SystemExit as stop:
            status = stop.code
    assert status in (0, 2)
    if status:
        assert err.getvalue().count("\n") == 1
        assert err.getvalue().startswith("jaxlaws")
    assert set(os.listdir()) <= {"runs.csv", "out.csv"}


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_file_goes_through_any_formats_unchanged(data, tmp_path_factory):
    """Parquet to CSV or JSON lines and back: predictions and the other columns stay what they were."""
    folder = tmp_path_factory.mktemp("files")
    name = data.draw(st.sampled_from(KINDS))
    law = jl.laws[name]
    weights = ["--weights", ",".join("1" * law.sizes["output"])] if law.output_shape == ("output",) else []
    count = data.draw(st.integers(1, 40))
    table = {key: values.tolist() for key, values in columns(law, count, seed=data.draw(st.integers(0, 99))).items()}
    table["group"] = data.draw(st.lists(st.sampled_from(list(law.groups)), min_size=count, max_size=count))
    words = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n"), min_size=1, max_size=5)
    table["note"] = data.draw(st.lists(words.map(lambda w: f"n{w}"), min_size=count, max_size=count))
    table["id"] = data.draw(st.lists(st.integers(-(2**62), 2**62), min_size=count, max_size=count))
    path = write(str(folder / "start.parquet"), table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jl.RangeWarning)
        expected = jl.predict_table(law, pa.table(table))
    for i, form in enumerate(data.draw(st.lists(st.sampled_from(["csv", "jsonl", "parquet"]), max_size=3))):
        following = str(folder / f"{i}.{form}")
        assert main(["gradient", name, path, "-o", following, *weights]) == 0
        drop = [c for c in read(following).column_names if c.startswith("d_")]
        path = write(str(folder / f"{i}-kept.{form}"), read(following).drop_columns(drop))
    assert main(["predict", name, path, "-o", str(folder / "end.parquet")]) == 0
    found = read(str(folder / "end.parquet"))
    for key in expected.column_names:
        if key in ("note", "group", "id"):
            assert found[key].to_pylist() == expected[key].to_pylist()
        else:
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-14)
