"""Row groups that are encoded side by side, against Arrow's own writer and readers."""

from __future__ import annotations

import contextlib
import datetime
import io
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxlaws as jl
from jaxlaws import files, row_groups
from jaxlaws.cli import main


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


def beside(data, tables):
    """A file that also has the columns of these tables."""

    def encode(table):
        described = pa.schema([*columns.schema, *table.schema], columns.schema.metadata)
        return files._parquet(table.schema, described, table)

    columns = row_groups.Columns(io.BytesIO(data))
    assert columns.copyable
    sink = io.BytesIO()
    writer = row_groups.RowGroups(sink, encode, columns)
    for table in tables:
        writer.write(table)
    writer.close()
    return sink.getvalue()


def new_columns(count, pieces):
    whole = pa.table({"new": np.arange(count) * 0.5, "other": np.arange(count, dtype=np.float32)})
    ends = [count * (i + 1) // pieces for i in range(pieces)]
    return whole, [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("pieces", [1, 7])
def test_columns_of_a_file_are_copied(options, pieces):
    tables = [table_of(start, count).replace_schema_metadata({"about": "x"}) for start, count in ((0, 100), (100, 250))]
    data = written(tables, **options)
    new, parts = new_columns(350, pieces)
    file = pq.ParquetFile(io.BytesIO(beside(data, parts)))
    expected = pa.concat_tables(tables)
    for name in new.column_names:
        expected = expected.append_column(name, new[name])
    assert file.read().to_pylist() == expected.to_pylist()
    before = pq.ParquetFile(io.BytesIO(data))
    assert file.schema_arrow == pa.schema([*before.schema_arrow, *new.schema], {"about": "x"})
    assert file.metadata.num_row_groups == before.metadata.num_row_groups
    for i in range(file.metadata.num_row_groups):
        for j in range(before.metadata.num_columns):
            mine, other = (each.metadata.row_group(i).column(j) for each in (file, before))
            assert mine.statistics == other.statistics
            assert mine.total_compressed_size == other.total_compressed_size
        assert file.read_row_group(i).num_rows == before.metadata.row_group(i).num_rows


@pytest.mark.parametrize("writer", ["polars", "duckdb", "pyarrow with indexes", "pyarrow, format 1.0"])
def test_columns_of_files_of_other_writers_are_copied(writer, tmp_path):
    path = tmp_path / "in.parquet"
    table = pa.table({"x": np.arange(5000) / 7, "g": ["a", None, "b", "b", "c"] * 1000, "i": range(5000)})
    if writer == "polars":
        polars = pytest.importorskip("polars")
        polars.from_arrow(table).write_parquet(path, row_group_size=1500)
    elif writer == "duckdb":
        duckdb = pytest.importorskip("duckdb")
        rows = table  # which it finds by its name
        assert len(rows) == 5000
        duckdb.sql(f"copy (select * from rows) to '{path}' (format parquet, row_group_size 2048)")
    elif "indexes" in writer:
        pq.write_table(table, path, row_group_size=1500, write_page_index=True, write_page_checksum=True)
    else:
        pq.write_table(table, path, version="1.0", data_page_version="1.0", use_dictionary=False, store_schema=False)
    new, parts = new_columns(5000, 3)
    found = beside(path.read_bytes(), parts)
    whole = pq.read_table(io.BytesIO(found))
    assert whole.column_names == ["x", "g", "i", "new", "other"]
    assert whole.to_pylist() == [a | b for a, b in zip(pq.read_table(path).to_pylist(), new.to_pylist(), strict=True)]
    (tmp_path / "out.parquet").write_bytes(found)
    with contextlib.suppress(ImportError):
        import polars

        read = polars.scan_parquet(tmp_path / "out.parquet").filter(polars.col("x") > 600).collect()
        assert read["new"].to_list() == [i / 2 for i in range(5000) if i / 7 > 600]
    with contextlib.suppress(ImportError):
        import duckdb

        read = duckdb.sql(f"select sum(new), count(g) from '{tmp_path}/out.parquet' where i >= 4000").fetchall()
        assert read == [(sum(i / 2 for i in range(4000, 5000)), 800)]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.booleans(),
)
def test_row_groups_stay_whatever_the_lengths_of_the_tables(sizes, lengths, dictionary):
    tables = [pa.table({"x": np.arange(size) + 0.25, "t": list(map(str, range(size)))}) for size in sizes]
    data = written(tables, use_dictionary=dictionary)
    count, parts, start = sum(sizes), [], 0
    whole, _ = new_columns(count, 1)
    for length in lengths:
        parts.append(whole[start : start + length])
        start += length
    parts.append(whole[start:])
    file = pq.ParquetFile(io.BytesIO(beside(data, parts)))
    assert [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)] == sizes
    assert file.read(["x", "new"]).to_pydict() == {
        "x": [x for size in sizes for x in np.arange(size) + 0.25],
        "new": whole["new"].to_pylist(),
    }


def test_another_number_of_rows_is_an_error():
    data = written([table_of(0, 100)])
    for count in (99, 101):
        with pytest.raises(ValueError, match="another number of rows"):
            beside(data, new_columns(count, 2)[1])


def test_files_whose_columns_are_not_copied(tmp_path):
    path = tmp_path / "x.parquet"
    assert files.columns_of(str(path), None) is None
    assert files.columns_of(str(tmp_path), None) is None
    assert files.columns_of("-", "parquet") is None
    path.write_bytes(b"PAR1 and no footer")
    assert files.columns_of(str(path), None) is None
    table = pa.table({"x": np.arange(1000.0)})
    pq.write_table(table, path, row_group_size=100)
    assert files.columns_of(str(path), None) is None, "short row groups are joined"
    pq.write_table(table[:0], path)
    assert files.columns_of(str(path), None) is None
    pq.write_table(table, path)
    assert files.columns_of(str(path), "csv") is None
    columns = files.columns_of(str(path), None)
    assert columns.rows == [1000]
    columns.close()


def test_a_predicted_file_has_all_columns_as_they_were(tmp_path):
    path, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    table = table_of(0, 1000).append_column("sft_data_size", pa.array(np.geomspace(1e2, 1e6, 1000)))
    pq.write_table(table.replace_schema_metadata({"about": "these"}), path, compression="zstd")
    group = "('gpt2', 'flan')"
    main(["predict", "sft", str(path), "--group", group, "-o", str(target), "--gradients"])
    found = pq.read_table(target)
    assert found.drop_columns(["sft_loss", "d_sft_loss_d_sft_data_size"]).to_pylist() == table.to_pylist()
    assert found.schema.metadata == {b"about": b"these"}
    np.testing.assert_array_equal(found["sft_loss"], jl.laws["sft"](group, sft_data_size=table["sft_data_size"]))
    assert pq.ParquetFile(target).metadata.row_group(0).column(0).compression == "ZSTD", "it is copied"
    main(["predict", "sft", str(target), "--group", group, "-o", str(target)])  # in its own place, once more
    again = pq.read_table(target)
    assert again["predicted_sft_loss"].equals(found["sft_loss"])
