"""Whole runs of the command on files, against the same work by polars and DuckDB, and by pyarrow with no prediction.

    pytest benchmarks/bench_files.py --rows 50000000

Time is that of the process, from start to end. polars and DuckDB join the coefficients of the groups to the rows, in
their streaming engines, and write with the compression of jaxlaws; their predictions are checked. polars keeps the
order of the rows, as jaxlaws does, and DuckDB does not. Each result holds its peak memory, and its ratio: the median,
over the rounds, of its time by that of the peer `pyarrow`, taken right before (`--benchmark-json`, and printed with
`-s`).
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import jaxlaws as jl

LAW = jl.laws["parallel"]
# The peer reads in the batches that jaxlaws reads, and writes the columns that jaxlaws writes, a column of floats in
# place of the prediction, with the settings that jaxlaws writes with.
PYARROW = """
import sys, pyarrow as pa, pyarrow.parquet as pq
file = pq.ParquetFile(sys.argv[1], read_dictionary={dictionary})
schema = file.schema_arrow.append(pa.field("loss", pa.float64()))
with pq.ParquetWriter(sys.argv[2], schema, use_dictionary=["group"]) as writer:
    for batch in file.iter_batches(batch_size=1 << 18):
        writer.write_table(pa.Table.from_batches([batch]).append_column("loss", batch["num_params"]))
"""
# The shortest program: the columns that there are, with the settings that there are.
REWRITE = """
import sys, pyarrow.parquet as pq
file = pq.ParquetFile(sys.argv[1])
with pq.ParquetWriter(sys.argv[2], file.schema_arrow) as writer:
    for batch in file.iter_batches(batch_size=1 << 18):
        writer.write_batch(batch)
"""
NAMES = [v.name for v in jl.variables(LAW.coefs)]
GROUPS = [{"group": name, **dataclasses.asdict(coefs)} for name, coefs in LAW.groups.items()]
POLARS = f"""
import sys, polars
from polars import col
coefs = polars.LazyFrame({GROUPS})
s = (-col("alpha") * col("num_params").log()).exp()
p = (-col("beta") * col("parallel_size").log()).exp()
loss = col("c0") + col("c1") * s + col("c2") * p + col("c3") * s * p
rows = polars.scan_parquet(sys.argv[1]).join(coefs, on="group", how="left", maintain_order="left")
rows.with_columns(loss=loss).drop({NAMES}).sink_parquet(sys.argv[2], compression="snappy", engine="streaming")
"""
VALUES = ", ".join(str(tuple(row.values())) for row in GROUPS)
DUCKDB = f'''
import sys, duckdb
duckdb.sql("""create table coefs("group" varchar, {", ".join(f"{name} double" for name in NAMES)})""")
duckdb.sql("""insert into coefs values {VALUES}""")
duckdb.sql(f"""copy (
    select rows.* exclude (s, p, {", ".join(NAMES)}), c0 + c1 * s + c2 * p + c3 * s * p as loss from (
        select rows.*, coefs.* exclude ("group"),
            exp(-alpha * ln(num_params)) as s, exp(-beta * ln(parallel_size)) as p
        from read_parquet('{{sys.argv[1]}}') as rows join coefs on rows."group" = coefs."group"
    ) as rows
) to '{{sys.argv[2]}}' (format parquet, compression snappy)""")
'''
# The peak memory of a process is that of the one that started it, if that is more: a small one must do it.
LAUNCHER = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
PREDICT = ["-m", "jaxlaws", "predict", LAW.name, "IN", "-o", "OUT"]
PEERS = {
    "jaxlaws": PREDICT,
    "jaxlaws_gradients": [*PREDICT, "--gradients"],
    "jaxlaws_float32": [*PREDICT, "--float32"],
    "polars": ["-c", POLARS, "IN", "OUT"],
    "duckdb": ["-c", DUCKDB, "IN", "OUT"],
    "pyarrow": ["-c", PYARROW.format(dictionary=None), "IN", "OUT"],
    "pyarrow_dictionary": ["-c", PYARROW.format(dictionary=["group"]), "IN", "OUT"],
    "pyarrow_rewrite": ["-c", REWRITE, "IN", "OUT"],
}


@pytest.fixture(scope="module")
def table(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "in.parquet"
    rows = str(request.config.getoption("--rows"))
    subprocess.run([sys.executable, "-m", "jaxlaws", "example", LAW.name, "--rows", rows, "-o", path], check=True)
    return path


def run(peer, source):
    """Seconds and peak memory, in MiB, of one run, which writes a new file."""
    target = source.with_name("out.parquet")
    target.unlink(missing_ok=True)
    args = [{"IN": source, "OUT": target}.get(arg, arg) for arg in PEERS[peer]]
    command = [sys.executable, "-c", LAUNCHER, sys.executable, *args]
    seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(seconds), float(peak) / 1024


def check(target, tolerance):
    """All rows are there, and the first of them have their predictions."""
    source, found = (pq.ParquetFile(path) for path in (target.with_name("in.parquet"), target))
    assert source.metadata.num_rows == found.metadata.num_rows
    rows = {name: np.array(column[:1000]) for name, column in found.read_row_group(0).to_pydict().items()}
    assert set(rows) >= {*source.schema_arrow.names, "loss"}
    inputs = {name: rows[name] for name in LAW.input_columns}
    np.testing.assert_allclose(rows["loss"], LAW(rows["group"].tolist(), inputs), rtol=tolerance)


@pytest.mark.parametrize("peer", PEERS)
def test_parquet_to_parquet(benchmark, table, peer):
    if not peer.startswith(("jaxlaws", "pyarrow")):
        pytest.importorskip(peer)
    ratios, peaks = [], []

    def before():
        others.append(run("pyarrow", table)[0])

    def timed():
        seconds, peak = run(peer, table)
        ratios.append(seconds / others[-1])
        peaks.append(peak)

    others = []
    run(peer, table)
    if "pyarrow" not in peer:
        check(table.with_name("out.parquet"), 1e-5 if "float32" in peer else 1e-12)
    benchmark.pedantic(timed, setup=before, rounds=3, iterations=1)
    benchmark.extra_info["rows"] = pq.read_metadata(table).num_rows
    benchmark.extra_info["peak memory, MiB"] = round(max(peaks))
    benchmark.extra_info["time by that of pyarrow"] = round(statistics.median(ratios), 2)
    print(f"\n{peer}: {benchmark.extra_info}")
