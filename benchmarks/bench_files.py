"""Whole runs of the command on files, against pyarrow reading and writing the same file.

    pytest benchmarks/bench_files.py --rows 10000000

Time is that of the process, from start to end; the peak memory of each is among the results (`--benchmark-json`).
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

REWRITE = """
import sys, pyarrow.parquet as pq
file = pq.ParquetFile(sys.argv[1])
with pq.ParquetWriter(sys.argv[2], file.schema_arrow) as writer:
    for batch in file.iter_batches(batch_size=1 << 20):
        writer.write_batch(batch)
"""


@pytest.fixture(scope="module")
def table(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "in.parquet"
    rows = str(request.config.getoption("--rows"))
    subprocess.run([sys.executable, "-m", "jaxlaws", "example", "parallel", "--rows", rows, "-o", path], check=True)
    return path


@pytest.mark.parametrize("peer", ["jaxlaws", "jaxlaws_gradients", "jaxlaws_float32", "pyarrow_rewrite"])
def test_parquet_to_parquet(benchmark, table, peer):
    target = table.with_name(f"{peer}.parquet")
    args = {
        "jaxlaws": ["-m", "jaxlaws", "predict", "parallel", table, "-o", target],
        "jaxlaws_gradients": ["-m", "jaxlaws", "predict", "parallel", table, "-o", target, "--gradients"],
        "jaxlaws_float32": ["-m", "jaxlaws", "predict", "parallel", table, "-o", target, "--float32"],
        "pyarrow_rewrite": ["-c", REWRITE, table, target],
    }[peer]
    peaks = []

    def run():
        process = subprocess.Popen([sys.executable, *args])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        assert status == 0
        peaks.append(usage.ru_maxrss / 1024)

    benchmark.pedantic(run, rounds=3, iterations=1, warmup_rounds=1)
    benchmark.extra_info["peak memory, MiB"] = max(peaks)
