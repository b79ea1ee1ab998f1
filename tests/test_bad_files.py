"""Files that are damaged, in another encoding or another form: one line with the file and the place, and no more."""

import json
import os
import random
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import jaxlaws as jl

PARALLEL = jl.laws["parallel"]
HEADER = "num_params,parallel_size,loss,group\n"
ROWS = "1e9,1,2.0,pile\n2e9,2,1.9,pile\n4e9,4,1.8,pile\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


CSV = {
    "semicolons": ((HEADER + ROWS).replace(",", ";"), "separated by ';', where a comma is needed"),
    "semicolons and commas": ("params;tokens\n1e9;2,5\n", "row 1 below the names .*separated by ';', where a comma is"),
    "tabs": ((HEADER + ROWS).replace(",", "\t"), r"separated by '\\t', where a comma is needed"),
    "a comment first": ("# runs of May\n" + HEADER + ROWS, "take out the comment in the first line, where the names"),
    "a comment between": (
        HEADER + ROWS + "# the end\n" + ROWS,
        "row 4 below .*'# the end'; take out lines of comments",
    ),
    "a comment of columns": (HEADER + "#1,2,3,pile\n" + ROWS, "column 'num_params' must hold numbers: '#1' in row 1"),
    "too few": (HEADER + ROWS + "1e9,1\n", "row 4 below .*Expected 4 columns, got 2: '1e9,1'; put values that hold a"),
    "an open quotation": (HEADER + ROWS + '"1e9,1,2,pile\n', "row 4 below .*; a quotation mark has no partner"),
    "text": (HEADER + ROWS + "1e9,1,diverged,pile\n", "column 'loss' must hold numbers: 'diverged' in row 4"),
    "NaN": (HEADER + ROWS + "1e9,1,NaN,pile\n", r"'loss' is not a number \(NaN\): row 4; --drop-missing leaves such"),
    "infinity": (HEADER + ROWS + "1e9,1,inf,pile\n", "'loss' is infinite: row 4; --drop-missing leaves such"),
    "nothing": (HEADER + ROWS + "1e9,1,,pile\n", "column 'loss' has no value: row 4; --drop-missing leaves such"),
    "Latin-1": ((HEADER + ROWS + "1e9,1,2,ü\n").encode("latin-1"), "not UTF-8: byte 0xfc in line 5; save it as UTF-8"),
    "UTF-16": ((HEADER + ROWS).encode("utf-16"), "the text is UTF-16, or no text at all; save it as UTF-8"),
    "UTF-16 without a mark": ((HEADER + ROWS).encode("utf-16-be"), "the text is UTF-16"),
    "escape bytes": (HEADER + ROWS + "1e9,1,\x1b[31mred,pile\n", r"'\\x1b\[31mred' in row 4"),
    "escape bytes of Arrow": (HEADER + ROWS + "1e9,\x1b]0;x\x07\n", r"got 2: '1e9,\\x1b\]0;x\\x07'"),
    "escape bytes in a group": (HEADER + "1e9,1,2,\x1b[2J\n", r"row 1: unknown group of parallel '\\x1b\[2J'"),
    "escape bytes in a name": ("n\x1b[2J\n1\n", r"the table has 'n\\x1b\[2J'"),
}


@pytest.mark.parametrize("case", list(CSV))
def test_bad_text_has_a_place_and_says_what_to_do(run, case):
    content, words = CSV[case]
    Path("runs.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    status, out, err = run("evaluate", "parallel", "runs.csv")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert re.match(f"jaxlaws: runs.csv: .*{words}", err), err
    assert "\x1b" not in err
    assert os.listdir() == ["runs.csv"]


@pytest.mark.parametrize("command", ["fit", "evaluate", "evaluate --holdout num_params>3e9", "compare", "plot"])
def test_drop_missing_leaves_out_runs_without_a_value(run, command):
    noise = 0.01 if command.startswith("compare") else 0  # information criteria of an exact fit are those of rounding
    lines = [
        f"{n:g},{p},{2 + 1e9 / n + 1 / p + noise * (n * p % 7)},{g}"
        for n in (1e9, 2e9, 4e9)
        for p in (1, 2, 4)
        for g in ("pile", "stack")
    ]
    Path("good.csv").write_text(HEADER + "".join(line + "\n" for line in lines))
    lines[4:4] = ["1e9,1,NaN,pile", "2e9,,1.8,stack"]
    Path("runs.csv").write_text(HEADER + "".join(line + "\n" for line in lines))
    verb, *options = command.split()
    more = {"plot": ["-o", "fit.png"], "fit": ["--starts", "1", "--json"]}.get(verb, ["--json"])
    found = {}
    for path, drop in (("runs.csv", []), ("runs.csv", ["--drop-missing"]), ("good.csv", [])):
        status, out, err = run(verb, "parallel", path, *options, *more, *drop)
        found[path, *drop] = out
        if path == "runs.csv" and not drop:
            assert (status, err.count("\n")) == (2, 1)
            assert re.match(
                r"jaxlaws: runs.csv: .*column '\w+' has no value: row 6; --drop-missing leaves such runs", err
            )
        else:
            assert status in (0, 1)
            told = "jaxlaws: warning: 2 of 20 runs were left out, which have no value: "
            assert err.count(told) == bool(drop)
    if verb != "plot":

        def rounded(text):
            return json.loads(text, parse_float=lambda x: float(f"{float(x):.6g}"))

        assert rounded(found["runs.csv", "--drop-missing"]) == rounded(found[("good.csv",)])


def test_escape_bytes_never_reach_a_terminal(run, monkeypatch):
    bad = "\x1b]0;owned\x07\x9b31m"
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    size = np.geomspace(200, 4e5, 12)
    table = {"sft_data_size": size, "sft_loss": 1 + 5 * size**-0.3, "group": [bad] * 12, bad: [bad] * 12}
    pq.write_table(pa.table(table), "runs.parquet")
    Path("runs.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in pa.table(table).to_pylist()), encoding="utf-8"
    )
    pyarrow.csv.write_csv(pa.table(table), "runs.csv")
    group = "('gpt2', 'flan')"
    for path in ("runs.parquet", "runs.csv", "runs.jsonl"):
        for words in (
            ("predict", "sft", path, "--group", group),
            ("predict", "sft", path, "--group", group, "--to", "csv"),
            ("predict", "sft", path, "--group", group, "--json"),
            ("predict", "sft", path),
            ("fit", "sft", path, "--starts", "4"),
            ("evaluate", "sft", path, "--holdout", "sft_data_size>1e5"),
            ("evaluate", "sft", path, "--by", "sft_data_size"),
        ):
            status, out, err = run(*words)
            assert status in (0, 2)
            assert not set("\x1b\x07\x9b") & set(out + err), words
            assert status == 0 or err.count("\n") == 1
    for path in ("runs.parquet", "runs.csv", "runs.jsonl"):
        with pytest.raises(jl.DataError) as error:
            jl.predict_table(jl.laws["sft"], jl.read_table(path))
        assert not set("\x1b\x07\x9b") & set(str(error.value))


def test_any_byte_of_a_parquet_file_may_be_wrong(run):
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "num_params": rng.uniform(5e8, 4e9, 900),
            "parallel_size": rng.integers(1, 5, 900),
            "group": rng.choice(["pile", "stack"], 900).tolist(),
            "note": [f"note {i}" for i in range(900)],
        }
    )
    for version, compression in (("1.0", "snappy"), ("2.0", "zstd")):
        pq.write_table(
            table,
            "whole.parquet",
            data_page_version=version,
            compression=compression,
            data_page_size=1000,
            row_group_size=300,
        )
        whole = Path("whole.parquet").read_bytes()
        chance = random.Random(0)
        # Most of all in the heads of pages, of which the first is at the start, and in what stands at the end.
        places = [
            *range(4, 60),
            *(chance.randrange(len(whole)) for _ in range(60)),
            *range(len(whole) - 60, len(whole)),
        ]
        for place in places:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << chance.randrange(8)
            Path("bad.parquet").write_bytes(damaged)
            status, _, err = run("predict", "parallel", "bad.parquet", "-o", "out.parquet")
            assert status in (0, 2), (version, place)
            lines = [line for line in err.splitlines() if "warning" not in line]
            assert status == 0 or (len(lines) == 1 and lines[0].startswith("jaxlaws: bad.parquet: ")), (place, err)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_dates_and_long_integers_of_csv_are_not_rewritten(run, form):
    times = ["2026-01-02 10:00:00", "2026-01-02T10:00:00Z", "2026-01-02", "10:30"]
    lines = [f"1e9,1,2.0,pile,{time},12345678901234567890" for time in times]
    for i, line in enumerate(lines):
        path = f"runs{i}.csv"
        Path(path).write_text(HEADER[:-1] + ",time,id\n" + line + "\n")
        status, out, err = run("predict", "parallel", path, "--to", form)
        assert (status, err) == (0, "")
        assert times[i] in out
        assert "12345678901234567890" in out


def test_other_names_of_an_input_that_is_there_may_be_anything(run):
    names = [alias for v in jl.variables(PARALLEL.inputs) for alias in v.aliases]
    Path("runs.csv").write_text(HEADER[:-1] + f",{','.join(names)}\n1e9,1,2.0,pile{',x' * len(names)}\n")
    assert run("predict", "parallel", "runs.csv", "-o", "out.csv")[0] == 0
    assert run("evaluate", "parallel", "runs.csv")[0] == 0
    assert run("evaluate", "parallel", "runs.csv", "--holdout", "loss>5")[2].count("holds out none of 1 runs") == 1
