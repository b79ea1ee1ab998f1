"""Options of the benchmarks."""


def pytest_addoption(parser):
    parser.addoption("--rows", type=int, default=100_000, help="rows of the files (default 100,000)")
