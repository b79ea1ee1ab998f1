"""JSON lines: what a law does not use is carried as it is, wherever its keys and types change."""

import gzip
import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jaxlaws as jl
from jaxlaws import files

PARALLEL = jl.laws["parallel"]
LATE = {
    "a key": ({}, {"note": "x"}),
    "the name of the output": ({}, {"loss": 2.5}),
    "a text after integers": ({"id": 1}, {"id": "one"}),
    "a float after integers": ({"id": 1}, {"id": 1.5}),
    "an integer beyond 64 bits": ({"id": 1}, {"id": 12345678901234567890123}),
    "a list after nulls": ({"id": None}, {"id": [1, {"a": None}]}),
    "an object after texts": ({"id": "x"}, {"id": {"a": 1, "b": [True]}}),
    "another key in an object": ({"id": {"a": 1}}, {"id": {"b": "x"}}),
    "an empty object": ({"id": {"a": 1}}, {"id": {}}),
    "a text after booleans": ({"id": True}, {"id": "no"}),
    "no date after dates": ({"day": "2026-01-02 10:00:00"}, {"day": "today"}),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(first, last, count=40):
    """Rows whose last one differs, beyond the first block."""
    size = np.linspace(1e9, 2e9, count).tolist()
    rows = [{"num_params": n, "parallel_size": 2, "group": "pile", **first} for n in size]
    rows[-1] |= last
    return rows


def write(path, rows):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    Path(path).write_bytes(gzip.compress(data) if path.endswith(".gz") else data)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 500)


@pytest.mark.parametrize("case", list(LATE))
@pytest.mark.parametrize("source", ["runs.jsonl", "runs.jsonl.gz", "-"])
def test_late_keys_and_types_reach_json_lines_to_the_letter(run, small, case, source):
    rows = rows_of(*LATE[case])
    write(source if source != "-" else "runs.jsonl", rows)
    stdin = Path("runs.jsonl").read_bytes() if source == "-" else None
    status, out, err = run("predict", "parallel", source, "--json", **({} if stdin is None else {"stdin": stdin}))
    assert (status, err) == (0, "")
    name = "predicted_loss" if "loss" in rows[-1] else "loss"
    expected = PARALLEL("pile", num_params=np.array([row["num_params"] for row in rows]), parallel_size=2.0)
    for line, row, loss in zip(out.splitlines(), rows, np.asarray(expected).tolist(), strict=True):
        found = json.loads(line)
        assert found.pop(name) == pytest.approx(loss, rel=1e-13)
        assert found == row
        assert line.startswith(json.dumps(row)[:-1] + ", ")


@pytest.mark.parametrize("case", list(LATE))
def test_late_keys_and_types_reach_other_formats(run, small, case):
    rows = rows_of(*LATE[case])
    write("runs.jsonl", rows)
    assert run("predict", "parallel", "runs.jsonl", "-o", "out.parquet")[0] == 0
    table = pq.read_table("out.parquet")
    assert len(table) == len(rows)
    for key in set(rows[0]) | set(rows[-1]):
        for row, found in ((rows[0], table[key][0].as_py()), (rows[-1], table[key][-1].as_py())):
            value = row.get(key)
            if isinstance(found, str) and not isinstance(value, str):
                found = json.loads(found)
            elif isinstance(found, dict):  # Arrow gives all keys to all objects
                found = {k: v for k, v in found.items() if v is not None}
            assert found == value
    status, out, err = run("predict", "parallel", "runs.jsonl", "--to", "csv")
    assert status == 0 or "CSV cannot hold column 'id' of type struct" in err
    assert status == 2 or len(out.splitlines()) == len(rows) + 1


@pytest.mark.parametrize("case", list(LATE))
def test_what_is_not_used_is_no_matter_to_scores_fits_and_searches(run, small, case):
    rows = [{**row, "loss": 2 + 1e9 / row["num_params"]} for row in rows_of(*LATE[case])]
    write("runs.jsonl", rows)
    expected = jl.evaluate(
        PARALLEL, "pile", {k: [row[k] for row in rows] for k in ("num_params", "parallel_size", "loss")}
    )
    status, out, err = run("evaluate", "parallel", "runs.jsonl", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["r2"] == pytest.approx(expected.r2)
    table = jl.read_table("runs.jsonl")
    assert len(jl.fitting.runs.read_runs(PARALLEL, table).group) == len(rows)
    assert jl.evaluate(PARALLEL, None, table).r2 == pytest.approx(expected.r2)


def test_renamed_columns_of_changing_kinds(run, small):
    rows = rows_of({"id": 1}, {"id": 12345678901234567890123, "late": [1]})
    rows = [{"n_par" if key == "num_params" else key: value for key, value in row.items()} for row in rows]
    write("runs.jsonl", rows)
    options = ("--rename", "n_par=num_params", "--rename", "late=early")
    status, out, err = run("predict", "parallel", "runs.jsonl", *options, "--json")
    assert (status, err) == (0, "")
    last = json.loads(out.splitlines()[-1])
    assert (last["id"], last["early"], last["num_params"]) == (12345678901234567890123, [1], rows[-1]["n_par"])


def test_numbers_are_numbers_in_any_spelling(run, small):
    rows = rows_of({}, {"num_params": 10**20, "parallel_size": 2.5})
    rows[3]["num_params"] = 123456789012345678901
    write("runs.jsonl", rows)
    _, out, _ = run("predict", "parallel", "runs.jsonl", "--json")
    found = [json.loads(line)["loss"] for line in out.splitlines()]
    sizes = np.array([float(row["num_params"]) for row in rows])
    expected = PARALLEL("pile", num_params=sizes, parallel_size=np.array([2.0] * 39 + [2.5]))
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    with pytest.warns(jl.RangeWarning):
        table = jl.predict_table(PARALLEL, jl.read_table("runs.jsonl"))
    np.testing.assert_allclose(table["loss"], expected, rtol=1e-13)


@pytest.mark.parametrize("word", ["NaN", "nan", "Infinity", "-Infinity"])
@pytest.mark.parametrize("bare", [False, True])
def test_numbers_that_json_has_not(run, small, word, bare):
    rows = [{**row, "loss": 2.0 + i} for i, row in enumerate(rows_of({}, {}))]
    rows[-1]["loss"] = float(word) if bare else word
    write("runs.jsonl", rows)
    assert jl.read_table("runs.jsonl")["loss"].type == pa.float64()
    status, _, err = run("evaluate", "parallel", "runs.jsonl")
    assert (status, err.count("\n")) == (2, 1)
    assert "runs.jsonl: column 'loss' is " in err
    assert err.endswith(": row 40; --drop-missing leaves such runs out\n")
    status, _, err = run("evaluate", "parallel", "runs.jsonl", "--drop-missing")
    assert (status, err) == (0, "jaxlaws: warning: 1 of 40 runs were left out, which have no value: loss in 1\n")


BAD = {
    "truncated": (
        b'{"n": 1}\n{"n": 2, "p',
        "in line 2, column 10: Unterminated string .*each line must be one whole object",
    ),
    "not an object": (b'{"n": 1}\n\n3\n', "line 3 is not an object; each line must be one"),
    "an array": (b'[{"n": 1}]', "this is a JSON array; a table in JSON lines has one object per line"),
    "over many lines": (b'{\n"n": 1\n}\n', "JSON parse error in line 1"),
    "two on a line": (b'{"n": 1} {"n": 2}\n', "JSON parse error in line 1, column 10: Extra data"),
    "a key twice": (b'{"n": 1}\n{"n": 1, "n": 2}\n', "line 2 has a key twice"),
    "Latin-1": (
        '{"n": 1}\n{"n": "é"}\n'.encode("latin-1"),
        "the text is not UTF-8: byte 0xe9 in line 2; save it as UTF-8",
    ),
    "UTF-16": ('{"n": 1}\n'.encode("utf-16"), "the text is UTF-16"),
    "UTF-16 without a mark": ('{"n": 1}\n'.encode("utf-16-le"), "the text is UTF-16"),
    "empty": (b"\n \n", "the file is empty"),
    "deep": (b'{"n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "JSON parse error in line 1"),
    "text for a number": (
        b'{"num_params": 1, "parallel_size": 1}\n{"num_params": "two", "parallel_size": 1}\n',
        "column 'num_params' must hold numbers: 'two' in row 2",
    ),
    "a list for a number": (
        b'{"num_params": 1, "parallel_size": 1}\n{"num_params": [2], "parallel_size": 1}\n',
        r"column 'num_params' must hold numbers: '\[2\]' in row 2",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_lines_have_a_place(run, small, case):
    data, words = BAD[case]
    Path("runs.jsonl").write_bytes(data)
    status, out, err = run("predict", "parallel", "runs.jsonl", "--group", "pile", "-o", "out.jsonl")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert os.listdir() == ["runs.jsonl"]
    assert re.match(f"jaxlaws: runs.jsonl: .*{words}", err), err


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        ["", "NaN", "2026-01-02", "2026-01-02T10:00:00Z", "007", "é", "\x1b[31m", "\ud800", "[{", "a\nb"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(["x", "y", "loss", "é"]), VALUES, max_size=3), min_size=1, max_size=20))
def test_any_other_columns_come_out_as_they_went_in(run, small, others):
    rows = [{**other, "num_params": 1e9, "parallel_size": 2, "group": "pile"} for other in others]
    write("runs.jsonl", rows)
    assert run("predict", "parallel", "runs.jsonl", "-o", "out.jsonl")[0] == 0
    with open("out.jsonl", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    name = "predicted_loss" if any("loss" in other for other in others) else "loss"
    for row in found:
        assert row.pop(name) > 0
    assert found == rows
    assert run("predict", "parallel", "runs.jsonl", "-o", "out.parquet")[0] == 0
    assert len(pq.read_table("out.parquet")) == len(rows)
