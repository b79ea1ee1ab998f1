"""Folders that Hugging Face datasets saves, with the `state.json` that its versions write, and damaged ones."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jaxlaws as jl
from jaxlaws import files

ROWS = pa.table(
    {
        "num_params": np.linspace(1e9, 2e9, 10),
        "parallel_size": [1, 2] * 5,
        "group": ["pile", "stack", "pile", "pile", "stack"] * 2,
    }
).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"num_params": {"_type": "Value"}}}})})

# What the versions write, but for the lists of files. 2.8 writes what 5.2 does.
NEWEST = {
    "_fingerprint": "b939701c2edeaedd",
    "_format_columns": None,
    "_format_kwargs": {},
    "_format_type": None,
    "_output_all_columns": False,
    "_split": None,
}
V1_18 = {**NEWEST, "_indexes": {}}
V1_4 = {**V1_18, "_data": None, "_indices": None, "_inplace_history": [{"transforms": []}]}


def stream(path, table, rows_in_batch=4):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, rows_in_batch)


def save(path, state, **streams):
    """A folder of streams, whose names have "_" for "-"."""
    path.mkdir(parents=True)
    (path / "state.json").write_text(json.dumps(state, indent=2, sort_keys=True))
    (path / "dataset_info.json").write_text(json.dumps({"citation": "", "description": "", "features": {}}))
    for name, table in streams.items():
        stream(path / f"{name.replace('_', '-')}.arrow", table)
    return path


def shards(count):
    return [{"filename": f"data-{i:05d}-of-{count:05d}.arrow"} for i in range(count)]


def newest(path, tables):
    names = [f"data_{i:05d}_of_{len(tables):05d}" for i in range(len(tables))]
    return save(path, {**NEWEST, "_data_files": shards(len(tables))}, **dict(zip(names, tables, strict=True)))


def three(path):
    return newest(path, [ROWS[:4], ROWS[4:7], ROWS[7:]])


def one(**state):
    return lambda path: save(path, {**state, "_data_files": [{"filename": "dataset.arrow"}]}, dataset=ROWS)


def selected(path):
    state = {
        **V1_4,
        "_data_files": [{"filename": "dataset.arrow"}, {"filename": "more.arrow"}],
        "_indices_data_files": [{"filename": "indices.arrow"}],
    }
    indices = pa.table({"indices": pa.array([7, 3, 9, 3, 0, 1], pa.uint64())})
    return save(path, state, dataset=ROWS[:6], more=ROWS[6:], indices=indices)


def part(path):
    state = {
        **V1_4,
        "_data_files": [{"filename": "csv-train.arrow", "skip": 2, "take": 3}, {"filename": "b.arrow"}],
        "_indices_data_files": [],
        "_split": "train[20%:50%]",
    }
    return save(path, state, csv_train=ROWS, b=ROWS[:1])


def part_selected(path):
    state = {
        **V1_4,
        "_data_files": [{"filename": "csv-train.arrow", "skip": 5, "take": 5}],
        "_indices_data_files": [{"filename": "i.arrow", "skip": 1, "take": 2}],
    }
    return save(path, state, csv_train=ROWS, i=pa.table({"indices": pa.array([0, 4, 2, 1], pa.int64())}))


FOLDERS = {
    "5.2, shards": (three, range(10)),
    "1.18.3": (one(**V1_18), range(10)),
    "1.8": (one(**V1_18, _indices_data_files=None), range(10)),
    "1.4.0": (one(**V1_4, _indices_data_files=[]), range(10)),
    "1.4.0, selected": (selected, [7, 3, 9, 3, 0, 1]),
    "1.4.0, part": (part, [2, 3, 4, 0]),
    "1.4.0, selected from a part": (part_selected, [9, 7]),
}


@pytest.mark.parametrize("version", list(FOLDERS))
def test_rows_of_a_folder_are_those_that_were_saved(run, tmp_path, version):
    make, rows = FOLDERS[version]
    path = make(tmp_path / "runs")
    expected = ROWS.take(list(rows))
    assert jl.read_table(path).to_pydict() == expected.to_pydict()
    assert run("predict", "parallel", path, "-o", tmp_path / "out.parquet") == (0, "", "")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.select(ROWS.column_names).to_pydict() == expected.to_pydict()
    loss = jl.laws["parallel"](
        expected["group"].to_pylist(), n=expected["num_params"].to_numpy(), p=expected["parallel_size"].to_numpy()
    )
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-15)
    assert found.schema.metadata is None, "what datasets is told of the columns is true no more"


def test_a_dict_of_datasets_is_its_split_train_or_else_the_first(run, tmp_path):
    def saved(name, splits):
        for i, split in enumerate(splits):
            newest(tmp_path / name / split, [ROWS[i : i + 1]])
        (tmp_path / name / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
        return tmp_path / name

    path = saved("a", ["test", "train"])
    assert jl.read_table(path).to_pydict() == ROWS[1:2].to_pydict()
    assert jl.read_table(path / "test").to_pydict() == ROWS[:1].to_pydict()
    assert jl.read_table(f"{saved('b', ['validation', 'test'])}/").to_pydict() == ROWS[:1].to_pydict()
    status, out, _ = run("predict", "parallel", path, "--json")
    assert (status, [json.loads(line)["group"] for line in out.splitlines()]) == (0, ["stack"])


def remove(name):
    return lambda path: (path / name).unlink()


def change(name, text):
    return lambda path: (path / name).write_bytes(text)


def cut(count):
    def change(path):
        file = path / "data-00002-of-00003.arrow"
        file.write_bytes(file.read_bytes()[:-count])

    return change


def listing(files):
    return change("state.json", json.dumps({**NEWEST, "_data_files": files}).encode())


LAST = "data-00002-of-00003.arrow"
BAD = {
    "no such folder": (three, remove("state.json"), "has state.json or dataset_dict.json, and this one neither"),
    "missing shard": (three, remove(LAST), f"state.json lists '{LAST}', which is not there"),
    "corrupt JSON": (three, change("state.json", b'{"_data_files": ['), "state.json is not JSON: Expecting value"),
    "not UTF-8": (three, change("state.json", b"\xff"), "state.json is not JSON: .*utf-8"),
    "a list": (three, change("state.json", b"[]"), "state.json has no list '_data_files'"),
    "no list": (three, change("state.json", b"{}"), "state.json has no list '_data_files'"),
    "a file of no name": (three, listing([{"file": "a"}]), r"state.json lists \{'file': 'a'\} in place of a file"),
    "a name for a list": (three, listing("a.arrow"), "state.json lists None in place of a file"),
    "a folder as a shard": (three, listing([{"filename": "."}]), "state.json lists '.', which is not there"),
    "no shards": (three, listing([]), "state.json lists no files of data: the dataset has no rows"),
    "no stream": (three, change(LAST, b"num_params,parallel_size\n1,2\n"), f"{LAST}: "),
    "an empty shard": (three, change(LAST, b""), f"{LAST}: "),
    "cut in a batch": (three, cut(50), f"{LAST}: "),
    "cut between batches": (three, cut(8), f"{LAST} is cut off"),
    "another schema": (three, lambda path: stream(path / LAST, ROWS.drop("group")), f"{LAST} has other columns than"),
    "an index too large": (
        selected,
        lambda path: stream(path / "indices.arrow", pa.table({"indices": [3, 10]})),
        "indices.arrow: Index 10 out of bounds",
    ),
    "no indices": (
        selected,
        lambda path: stream(path / "indices.arrow", pa.table({"indices": [3.0]})),
        "indices.arrow must hold one column of indices",
    ),
    "missing indices": (selected, remove("indices.arrow"), "state.json lists 'indices.arrow', which is not there"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_damaged_folder_is_told(run, tmp_path, case):
    make, damage, words = BAD[case]
    path = make(tmp_path / "runs")
    damage(path)
    with pytest.raises(jl.DataError, match=f"^{path}: .*{words}"):
        jl.read_table(path)
    status, out, err = run("predict", "parallel", path, "-o", tmp_path / "out.csv")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"jaxlaws: {path}: ")
    assert os.listdir(tmp_path) == ["runs"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "dataset_dict.json is not JSON"),
        ("[]", "dataset_dict.json lists no splits"),
        ('{"splits": []}', "dataset_dict.json lists no splits"),
        ('{"splits": [3]}', "dataset_dict.json lists no splits"),
        ('{"splits": ["train"]}', "dataset_dict.json lists a split whose train/state.json is not there"),
    ],
)
def test_a_damaged_dict_of_datasets_is_told(tmp_path, content, words):
    (tmp_path / "dataset_dict.json").write_text(content)
    with pytest.raises(jl.DataError, match=f"^{tmp_path}: {words}"):
        jl.read_table(tmp_path)


def test_a_folder_is_read_in_tables_of_a_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BATCH_ROWS", 2000)
    table = pa.table({"x": np.arange(20_000), "y": np.arange(20_000) * 1.5, "note": ["x" * 9] * 20_000})
    path = newest(tmp_path / "runs", [table[:9000], table[9000:]])
    stream(path / "data-00000-of-00002.arrow", table[:9000], rows_in_batch=9000)  # and the other in batches of 4
    with files.open_reader(str(path), columns=["y", "x", "z"]) as reader:
        assert reader.schema.names == ["x", "y"]
        found, shares = [], []
        for part in reader:
            assert len(part) <= 2000
            found.append(part)
            shares.append(reader.fraction(0))
    assert len(found) < 15
    assert pa.concat_tables(found).equals(table.select(["x", "y"]))
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.7
    assert shares[-1] <= 1


def test_what_is_read_from_a_folder_stays_in_its_files(tmp_path):
    path = newest(tmp_path / "runs", [pa.table({"x": np.arange(10.0)})])
    stream(path / "data-00000-of-00001.arrow", pa.table({"x": np.arange(1e6)}), rows_in_batch=1000)
    before = pa.total_allocated_bytes()
    table = jl.read_table(path)
    assert len(table) == 1e6
    assert pa.total_allocated_bytes() - before < 1e6
