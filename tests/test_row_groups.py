"""Row groups that are encoded side by side, against Arrow's own writer and readers."""

from __future__ import annotations

import datetime
import io
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlaws import files, row_groups


def written(tables, encode=None, **options):
    """The bytes of a file of these tables."""

    def one(table):
        sink = io.BytesIO()
        pq.write_table(table, sink, **options)
        return sink.getvalue()

    sink = io.BytesIO()
    writer = row_groups.RowGroups(sink, encode or one)
    for table in tables:
        writer.write(table)
    writer.close()
    return sink.getvalue()


def table_of(start, count):
    """Columns of all kinds, with missing values."""
    rows = range(start, start + count)
    return pa.table({
        "real": pa.array(np.random.default_rng(start).normal(size=count)),
        "text": pa.array([None if i % 7 == 0 else f"text {i % 5}" for i in rows], pa.string()),
        "word": pa.array([f"word {i % 3}" for i in rows]).dictionary_encode(),
        "flag": pa.array([None if i % 5 == 0 else i % 2 == 0 for i in rows], pa.bool_()),
        "day": pa.array([datetime.date(2020, 1, 1) + datetime.timedelta(i % 900) for i in rows]),
        "list": pa.array([[i, None][: i % 3] for i in rows], pa.list_(pa.int64())),
        "record": pa.array([{"a": i, "b": {"c": str(i)}} for i in rows]),
        "pairs": pa.array([[("k", float(i))] for i in rows], pa.map_(pa.string(), pa.float64())),
        "nothing": pa.nulls(count),
        **{f"number {j}": pa.array([i * j for i in rows], pa.int32()) for j in range(20)},
    })  # fmt: skip


OPTIONS = [{}, {"row_group_size": 30}, {"write_page_index": True}, {"compression": "zstd", "data_page_size": 100}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_file_of_many_parts_is_read_as_the_tables_that_it_is_made_of(options):
    tables = [table_of(start, 100 + start) for start in (0, 100, 300, 700)]
    data = written(tables, **options)
    whole = pa.concat_tables(tables).to_pylist()
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.read().to_pylist() == whole
    groups = [file.read_row_group(i) for i in reversed(range(file.metadata.num_row_groups))]
    assert pa.concat_tables(groups[::-1]).to_pylist() == whole
    assert file.metadata.num_rows == len(whole)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_metadata_are_those_of_one_writer(options):
    options = dict(options)
    tables = [table_of(start, 100) for start in (0, 100, 200)]
    data = written(tables, **options)
    expected = io.BytesIO()
    with pq.ParquetWriter(
        expected, tables[0].schema, **{k: v for k, v in options.items() if k != "row_group_size"}
    ) as w:
        for table in tables:
            w.write_table(table, row_group_size=options.get("row_group_size"))
    found, expected = (pq.ParquetFile(io.BytesIO(each)).metadata for each in (data, expected.getvalue()))
    places = {"data_page_offset", "dictionary_page_offset", "file_offset", "index_page_offset"}
    ends = []
    for i in range(expected.num_row_groups):
        for j in range(expected.num_columns):
            mine, other = (each.row_group(i).column(j).to_dict() for each in (found, expected))
            assert {k: v for k, v in mine.items() if k not in places} == {
                k: v for k, v in other.items() if k not in places
            }
            first = mine["dictionary_page_offset"] or mine["data_page_offset"]
            ends += [first, first + mine["total_compressed_size"]]
    assert ends == sorted(ends), "columns follow one another, in order"
    assert ends[0] == 4
    assert found.num_row_groups == expected.num_row_groups


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_footer_that_is_read_and_encoded_is_the_same(options):
    data = written([table_of(0, 1000)], **options)
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    footer = data[start:-8]
    assert row_groups._encoded(row_groups.STRUCT, row_groups._struct(io.BytesIO(footer))) == footer


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.integers(1, 200), st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.binary(max_size=300)))
def test_structs_come_back(values):
    kinds = {bool: row_groups.TRUE, int: row_groups.I64, bytes: row_groups.BINARY}
    fields = {number: row_groups._Field(kinds[type(value)], value) for number, value in sorted(values.items())}
    found = row_groups._struct(io.BytesIO(row_groups._encoded(row_groups.STRUCT, fields)))
    assert {number: field.value for number, field in found.items()} == values


def test_the_order_is_that_of_the_tables_however_long_each_takes():
    def slow(table):
        time.sleep(0.02 * (table["x"][0].as_py() % 3 == 0))
        sink = io.BytesIO()
        pq.write_table(table, sink)
        return sink.getvalue()

    data = written([pa.table({"x": [i]}) for i in range(20)], slow)
    assert pq.read_table(io.BytesIO(data))["x"].to_pylist() == list(range(20))


def test_other_readers_read_it(tmp_path):
    polars = pytest.importorskip("polars")
    path = tmp_path / "many.parquet"
    with files.open_writer(str(path), "parquet") as writer:
        for start in range(0, 10_000, 1000):
            writer.write(pa.table({"x": np.arange(start, start + 1000.0), "g": ["a", "b"] * 500}))
    found = polars.scan_parquet(path).filter(polars.col("x") >= 4500).collect()
    assert found["x"].to_list() == [float(x) for x in range(4500, 10_000)]


def test_a_table_of_other_columns_is_an_error_and_leaves_no_file(tmp_path):
    def two():
        with files.open_writer(str(tmp_path / "x.parquet"), "parquet") as writer:
            writer.write(pa.table({"x": [1.0]}))
            writer.write(pa.table({"y": [1.0]}))

    with pytest.raises(ValueError, match="schema"):
        two()
    assert not list(tmp_path.iterdir())
