"""Whole runs of the command on files, against pyarrow reading and writing the same columns with no prediction.

    pytest benchmarks/bench_files.py --rows 50000000

Time is that of the process, from start to end. Each result holds its peak memory, and its ratio: the median, over the
rounds, of its time by that of the peer `pyarrow`, taken right before (`--benchmark-json`, and printed with `-s`).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import pytest

# The peer reads in the batches that jaxlaws reads, and writes the columns that jaxlaws writes, a column of floats in
# place of the prediction, with the settings that jaxlaws writes with.
PYARROW = """
import sys, pyarrow as pa, pyarrow.parquet as pq
file = pq.ParquetFile(sys.argv[1], read_dictionary={dictionary})
schema = file.schema_arrow.append(pa.field("loss", pa.float64()))
with pq.ParquetWriter(sys.argv[2], schema, use_dictionary=["group"]) as writer:
    for batch in file.iter_batches(batch_size=1 << 20):
        writer.write_table(pa.Table.from_batches([batch]).append_column("loss", batch["num_params"]))
"""
# The shortest program: the columns that there are, with the settings that there are.
REWRITE = """
import sys, pyarrow.parquet as pq
file = pq.ParquetFile(sys.argv[1])
with pq.ParquetWriter(sys.argv[2], file.schema_arrow) as writer:
    for batch in file.iter_batches(batch_size=1 << 20):
        writer.write_batch(batch)
"""
PREDICT = ["-m", "jaxlaws", "predict", "parallel", "IN", "-o", "OUT"]
PEERS = {
    "jaxlaws": PREDICT,
    "jaxlaws_gradients": [*PREDICT, "--gradients"],
    "jaxlaws_float32": [*PREDICT, "--float32"],
    "pyarrow": ["-c", PYARROW.format(dictionary=None), "IN", "OUT"],
    "pyarrow_dictionary": ["-c", PYARROW.format(dictionary=["group"]), "IN", "OUT"],
    "pyarrow_rewrite": ["-c", REWRITE, "IN", "OUT"],
}


@pytest.fixture(scope="module")
def table(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "in.parquet"
    rows = str(request.config.getoption("--rows"))
    subprocess.run([sys.executable, "-m", "jaxlaws", "example", "parallel", "--rows", rows, "-o", path], check=True)
    return path


def run(peer, source):
    """Seconds and peak memory, in MiB, of one run, which writes a new file."""
    target = source.with_name("out.parquet")
    target.unlink(missing_ok=True)
    args = [{"IN": source, "OUT": target}.get(arg, arg) for arg in PEERS[peer]]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *args])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    return time.perf_counter() - start, usage.ru_maxrss / 1024


@pytest.mark.parametrize("peer", PEERS)
def test_parquet_to_parquet(benchmark, table, peer):
    ratios, peaks = [], []

    def before():
        others.append(run("pyarrow", table)[0])

    def timed():
        seconds, peak = run(peer, table)
        ratios.append(seconds / others[-1])
        peaks.append(peak)

    others = []
    run(peer, table)
    benchmark.pedantic(timed, setup=before, rounds=3, iterations=1)
    benchmark.extra_info["peak memory, MiB"] = round(max(peaks))
    benchmark.extra_info["time by that of pyarrow"] = round(statistics.median(ratios), 2)
    print(f"\n{peer}: {benchmark.extra_info}")
