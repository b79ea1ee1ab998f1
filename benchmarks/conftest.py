"""Options of the benchmarks, and the clock that they share."""

import time

import pytest

# Peers are imported when they are asked for; none of them must be installed.
collect_ignore_glob = ["peers/*", "report.py"]


def count(text):
    """A number of rows: 1000 or 2^10."""
    return 2 ** int(text[2:]) if text.startswith("2^") else int(text)


def pytest_addoption(parser):
    parser.addoption("--rows", type=int, default=100_000, help="rows of the files (default 100,000)")
    parser.addoption("--problems", type=int, default=1000, help="problems of searches and fits (default 1000)")
    parser.addoption(
        "--sizes",
        type=lambda text: [count(size) for size in text.split(",")],
        default=[1, 2**10, 2**20],
        help="rows of the batches, smallest first (default 1,2^10,2^20)",
    )
    parser.addoption("--seconds", type=float, default=0.3, help="time for the rounds of one benchmark (default 0.3)")


@pytest.fixture
def clock(benchmark, request):
    """Time `run()` for a number of rows, best of several rounds, after a first call that is checked and kept apart."""

    def measure(run, rows, check=lambda result: None):
        first = seconds(run, check)
        warm = min(seconds(run) for _ in range(2 if first < 1 else 1))
        budget = request.config.getoption("--seconds")
        iterations = max(1, min(1000, int(1e-3 / warm)))
        rounds = max(3 if warm < 1 else 2, min(100, int(budget / (warm * iterations))))
        benchmark.pedantic(run, rounds=rounds, iterations=iterations)
        benchmark.extra_info["rows"] = rows
        benchmark.extra_info["compile, seconds"] = max(0.0, first - warm)
        if benchmark.stats:
            benchmark.extra_info["million rows per second"] = rows / benchmark.stats["min"] / 1e6

    measure.benchmark = benchmark
    return measure


def seconds(run, check=lambda result: None):
    """Time of one call; the result is let go before the next."""
    start = time.perf_counter()
    result = run()
    elapsed = time.perf_counter() - start
    check(result)
    return elapsed
