"""Run the benchmarks, and write what they say to RESULTS.md and a plot, beside this file.

python -m benchmarks.report                   # hours on two cores
python -m benchmarks.report --quick           # a few minutes: smaller batches, no torch
python -m benchmarks.report --only laws       # speed, gradients, kinds of batches, compile time: about 25 minutes
python -m benchmarks.report --only mixture    # one section alone; what RESULTS.md says of all else stays
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
DTYPES = ("float32", "float64")
LARGE = 1 << 18  # rows from which a batch counts for the goals
PEERS = {  # in the order of the tables
    "jaxlaws": "**jaxlaws**",
    "jaxlaws_out": "jaxlaws, kept output",
    "jaxlaws_on_numpy": "jaxlaws, NumPy in",
    "c": "C with libmvec",
    "c_rows": "C, array of rows",
    "c_pow": "C with its pow",
    "torch": "torch.compile",
    "numpy": "NumPy by hand",
    "numexpr": "numexpr",
    "numba": "numba parallel",
    "polars": "polars",
    "published": "published Python",
}
KEEPING = ("c", "c_rows", "c_pow", "numexpr", "numba")  # peers that write to memory that they keep
ACCURATE = ("jaxlaws", "c", "c_rows", "c_pow")  # whose errors are shown
TOOLS = ("torch", "numexpr", "numba", "polars")
COMPILED = ("jaxlaws", "torch", "numba", "numexpr")
PACKAGES = ("jaxlaws", "jax", "jaxlib", "numpy", "torch", "numexpr", "numba", "polars", "pyarrow")
SOLVERS = ("jaxlaws", "jax", "jaxlib", "numpy", "scipy", "cvxpy", "clarabel", "polars", "duckdb", "pyarrow")


# Running.


class Step(NamedTuple):
    """One call of pytest."""

    title: str
    file: str
    args: str
    selection: str = ""
    passes: int = 1  # minutes apart, which keeps a disturbance of the machine out of the best of them
    in_turn: bool = False  # peers solve small problems one after another, and several threads of BLAS only slow them


FULL = (
    Step("laws", "bench_laws.py", "--sizes 1,2^10,2^15,2^20 --seconds 0.15", passes=3),
    Step("kinds of batches", "bench_batches.py", "--sizes 2^20", passes=2),
    Step("large batches", "bench_laws.py", "--sizes 2^24", "value or memory", passes=2),
)
QUICK = (
    Step("laws", "bench_laws.py", "--sizes 2^10,2^18 --seconds 0.02", "not torch"),
    Step("kinds of batches", "bench_batches.py", "--sizes 2^16 --seconds 0.02"),
)


def measure(steps: Sequence[Step], folder: Path, cache: str) -> list[dict[str, Any]]:
    """The measurements of all steps; those that the folder has already are not made again."""
    work = [(step, turn) for turn in (1, 2, 3) for step in steps if turn <= step.passes]
    found = []
    for number, (step, turn) in enumerate(work, 1):
        target = folder / f"{step.title.replace(' ', '_')}_{turn}.json"
        if not target.exists():
            print(f"{number} of {len(work)}: {step.title}" + (f", pass {turn}" if step.passes > 1 else ""), flush=True)
            start = time.monotonic()
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
            command += ["--benchmark-quiet", f"--benchmark-json={target}", str(HERE / step.file), *step.args.split()]
            # torch must compile, and not find that its work was done by an earlier run.
            environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
            if step.in_turn:
                environment["OPENBLAS_NUM_THREADS"] = "1"
            subprocess.run([*command, "-k", step.selection], cwd=HERE.parent, env=environment, check=False)
            print(f"    {time.monotonic() - start:.0f} s", flush=True)
        with contextlib.suppress(FileNotFoundError):
            found += json.loads(target.read_text())["benchmarks"]
    return found


class Measured:
    """The best of each benchmark over all passes, by its name and the values of its parameters in any order."""

    def __init__(self, measurements: Iterable[dict[str, Any]]):
        self.seconds: dict[Any, float] = {}
        self.compiling: dict[Any, float] = {}
        self.rows: dict[Any, int] = {}
        self.figures: dict[Any, dict[str, Any]] = {}
        self.values: dict[str, dict[Any, None]] = {}
        for m in measurements:
            parameters = m["params"] or {}
            key = self._key(m["name"].partition("[")[0].removeprefix("test_"), *parameters.values())
            self.seconds[key] = min(m["stats"]["min"], self.seconds.get(key, math.inf))
            self.compiling.setdefault(key, m["extra_info"].get("compile, seconds", math.nan))  # a later pass may cache
            self.rows[key] = m["extra_info"].get("rows", 0)
            self.figures[key] = m["extra_info"]
            for name, value in parameters.items():
                self.values.setdefault(name, {})[value] = None

    @staticmethod
    def _key(benchmark: str, *parameters: Any) -> Any:
        return benchmark, frozenset(map(str, parameters))

    def time(self, benchmark: str, *parameters: Any) -> float:
        """Seconds a call; NaN if it was not measured."""
        return self.seconds.get(self._key(benchmark, *parameters), math.nan)

    def rate(self, benchmark: str, *parameters: Any) -> float:
        """Million rows per second; NaN if it was not measured."""
        return self.rows.get(self._key(benchmark, *parameters), 0) / self.time(benchmark, *parameters) / 1e6

    def figure(self, name: str, benchmark: str, *parameters: Any) -> float:
        """What else was found out; NaN if it was not measured."""
        return float(self.figures.get(self._key(benchmark, *parameters), {}).get(name, math.nan))

    def law(self, name: str, verb: str, dtype: str, rows: int, peer: str) -> float:
        """Million rows per second of a law in a peer."""
        return self.rate("rows_per_second", name, verb, dtype, rows, peer)

    def compile_time(self, name: str, peer: str) -> float:
        """Seconds; that of small batches, since the first call of a large one also waits for memory."""
        keys = [
            self._key("rows_per_second", name, "value", d, n, peer) for d in DTYPES for n in self.sizes if n < LARGE
        ]
        return max((self.compiling[key] for key in keys if key in self.compiling), default=math.nan)

    @property
    def laws(self) -> list[str]:
        """The laws that were measured."""
        return sorted(self.values["name"])

    @property
    def sizes(self) -> list[int]:
        """The batch sizes of laws, without those that only the plot shows."""
        return sorted(self.values["rows"])


# Goals: what issue and README promise, as ratios in one run.

GOALS = ("jaxlaws against", "goal", "worst", "median", "worst case", "verdict")


class Goal(NamedTuple):
    """A bound on some measured numbers."""

    text: str
    bound: float
    unit: str
    cases: dict[str, float]
    most: bool = False  # the bound is an upper one

    def row(self) -> list[str]:
        """Its row of the table."""
        cases = {where: value for where, value in self.cases.items() if not math.isnan(value)}
        bound = f"at {'most' if self.most else 'least'} {self.bound:,g}{self.unit}"
        if not cases:
            return [self.text, bound, "", "", "", "not measured"]
        missed = [value for value in cases.values() if (value > self.bound if self.most else value < self.bound)]
        where = (max if self.most else min)(cases, key=lambda name: cases[name])
        verdict = f"**not met** in {len(missed)} of {len(cases)}" if missed else "met"
        middle = digits(statistics.median(cases.values())) if len(cases) > 1 else ""
        return [self.text, bound, digits(cases[where]) + self.unit, middle and middle + self.unit, where, verdict]


def goals(m: Measured) -> list[Goal]:
    """The goals, with what was measured for each."""
    large = [n for n in m.sizes if n >= LARGE]

    def against(peers: Sequence[str], laws: Sequence[str]) -> dict[str, float]:
        """The least ratio over the peers; with a kept output only against those that have one."""

        def ratio(peer: str, *case: Any) -> float:
            name, dtype, rows = case
            ours = ("jaxlaws", "jaxlaws_out") if peer in KEEPING else ("jaxlaws",)
            return best(m.law(name, "value", dtype, rows, each) for each in ours) / m.law(
                name, "value", dtype, rows, peer
            )

        return {
            f"{name}, {dtype}, {rows_text(rows)}": min(
                (r for peer in peers if not math.isnan(r := ratio(peer, name, dtype, rows))), default=math.nan
            )
            for name in laws
            for dtype in DTYPES
            for rows in large
        }

    def compare(benchmark: str, a: str, b: str, laws: Sequence[str], value: Callable[..., float]) -> dict[str, float]:
        return {
            f"{name}, {dtype}": value(benchmark, name, dtype, a) / value(benchmark, name, dtype, b)
            for name in laws
            for dtype in DTYPES
        }

    one_row = {
        f"{name}, {kind}": 1e6 * m.time("one_row", name, kind) for name in m.laws for kind in ("jax", "numpy", "python")
    }
    long = {name: m.rate("long_columns", name, 64) / m.rate("long_columns", name, 1) for name in m.laws}
    both = compare("value_and_gradient", "value_and_gradient", "predict", m.laws, m.time)
    return [
        Goal("NumPy, vectorised by hand", 3, "x", against(["numpy"], m.laws)),
        Goal("the best of torch.compile, numexpr, numba and polars", 1.2, "x", against(TOOLS, m.laws)),
        Goal("C with libmvec", 1, "x", against(["c", "c_rows"], m.laws)),
        Goal("C with the pow of libmvec, which is more exact", 1, "x", against(["c_pow"], m.laws)),
        Goal("C with libmvec, domain_mixture alone", 1, "x", against(["c", "c_rows"], ["domain_mixture"])),
        Goal("value and gradient: time, against that of the value", 1.6, "x", both, most=True),
        Goal(
            "a grid of two axes, against its points as columns", 5, "x", compare("grid", "axes", "flat", m.laws, m.rate)
        ),
        Goal("rows of mixed groups, against one group", 0.7, "x", compare("groups", "mixed", "one", ["sft"], m.rate)),
        Goal("one row: time of a call", 40, " us", one_row, most=True),
        Goal("64 times as many rows: rows per second", 0.9, "x", long),
    ]


def best(rates: Iterable[float]) -> float:
    """The largest that was measured."""
    return max((rate for rate in rates if not math.isnan(rate)), default=math.nan)


# Writing.


def digits(x: float) -> str:
    """Three digits, without exponents."""
    if math.isnan(x):
        return ""
    if x == 0:
        return "0"
    if x >= 1000:
        return f"{round(x, 2 - math.floor(math.log10(x))):,.0f}"
    return f"{x:.3g}" if x >= 1e-4 else f"{x:.1e}"


def times(ratio: float) -> str:
    """Two digits, or all before the point."""
    return f"{ratio:.2g}x" if ratio < 99.5 else f"{ratio:,.0f}x"


def rows_text(rows: int) -> str:
    """A power of two as one."""
    return f"2^{rows.bit_length() - 1}" if rows > 1 and not rows & (rows - 1) else str(rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Sequence[int] = (0,)) -> str:
    """An aligned Markdown table of numbers, but for the columns of text."""
    lines = [list(header), *map(list, rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(header))]

    def text(line: Sequence[str]) -> str:
        aligned = (c.ljust(widths[i]) if i in text_columns else c.rjust(widths[i]) for i, c in enumerate(line))
        return "| " + " | ".join(aligned) + " |"

    rule = ["-" * w if i in text_columns else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([text(lines[0]), text(rule), *map(text, lines[1:])])


def rates(
    columns: dict[str, Callable[[str], float]],
    memory: Callable[[str], float] | None = None,
    peers: dict[str, str] = PEERS,
) -> str:
    """A table of peers: how much each does per second, and how many times faster jaxlaws is."""
    ours = {title: rate("jaxlaws") for title, rate in columns.items()}

    def cell(title: str, peer: str) -> str:
        rate = columns[title](peer)
        if math.isnan(rate):
            return ""
        return digits(rate) if peer == "jaxlaws" else f"{digits(rate)} ({times(ours[title] / rate)})"

    rows = [[label, *(cell(title, peer) for title in columns)] for peer, label in peers.items()]
    if memory is not None:
        rows.append(["limit of memory", *(digits(memory(title)) for title in columns)])
    return table(["", *columns], [row for row in rows if any(row[1:])])


def law_table(m: Measured, name: str) -> str:
    """The values of one law."""
    shown = [n for n in m.sizes if n in (1, 2**10) or n >= LARGE]
    cases = {f"{dtype}, {rows_text(n)}": (dtype, n) for dtype in DTYPES for n in shown}
    speed = rates(
        {title: lambda peer, case=case: m.law(name, "value", *case, peer) for title, case in cases.items()},
        lambda title: m.rate("memory", name, *cases[title]),
    )

    def error(peer: str) -> str:
        """In float32 and float64."""
        found = [m.figure("error", "rows_per_second", name, "value", d, max(shown), peer) for d in DTYPES]
        return f"{PEERS[peer]} {' and '.join(f'{x:.1e}' for x in found)}"

    measured = [peer for peer in ACCURATE if not math.isnan(m.law(name, "value", DTYPES[0], max(shown), peer))]
    return f"{speed}\n\n" + paragraph("Largest errors, relative:", ", ".join(map(error, measured)) + ".")


def gradient_table(m: Measured, dtype: str) -> str:
    """The gradients of all laws at the largest size that they were measured at."""
    rows = max(
        n for n in m.sizes if any(not math.isnan(m.law(name, "gradient", dtype, n, "jaxlaws")) for name in m.laws)
    )
    return rates({name: lambda peer, name=name: m.law(name, "gradient", dtype, rows, peer) for name in m.laws})


def batch_table(m: Measured) -> str:
    """What kinds of batches cost: a row for each, a column per law."""

    def ratio(value: Callable[..., float], benchmark: str, a: str, b: str) -> Callable[[str], str]:
        def cell(name: str) -> str:
            found = [digits(value(benchmark, name, d, a) / value(benchmark, name, d, b)) for d in DTYPES]
            return ", ".join(found) if all(found) else ""

        return cell

    def long(name: str) -> str:
        return digits(m.rate("long_columns", name, 64) / m.rate("long_columns", name, 1))

    def dicts(name: str) -> str:
        ours, theirs = (m.rate("list_of_dicts", name, peer) for peer in ("jaxlaws", "published"))
        return "" if math.isnan(ours / theirs) else f"{digits(ours)} ({times(ours / theirs)})"

    rows: dict[str, Callable[[str], str]] = {
        "value and gradient: time / that of the value": ratio(
            m.time, "value_and_gradient", "value_and_gradient", "predict"
        ),
        "grid of two axes: speed / that of its points as columns": ratio(m.rate, "grid", "axes", "flat"),
        "rows of mixed groups: speed / that of one group": ratio(m.rate, "groups", "mixed", "one"),
        "64 times as many rows, float32: rows per second": long,
        **{
            f"one row of {text}: microseconds": lambda name, kind=kind: digits(1e6 * m.time("one_row", name, kind))
            for kind, text in {"jax": "JAX arrays", "numpy": "NumPy arrays", "python": "Python numbers"}.items()
        },
        "lists of dicts: M rows/s (against the published code)": dicts,
    }
    return table(["", *m.laws], [[text, *map(cell, m.laws)] for text, cell in rows.items()])


def compile_table(m: Measured) -> str:
    """Seconds that a first call takes more than a warm one."""
    rows = [[PEERS[peer], *(digits(m.compile_time(name, peer)) for name in m.laws)] for peer in COMPILED]
    return table(["", *m.laws], [row for row in rows if any(row[1:])])


def machine() -> str:
    """Processor, cores, vector instructions and memory."""
    facts: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = facts.get("model name", platform.processor() or platform.machine())
    family = f" (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else ""
    flags = [
        flag for flag in ("avx2", "fma", "avx512f", "avx512dq", "avx512vl") if flag in facts.get("flags", "").split()
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}{family}, {cores} cores, {' '.join(flags) or 'no flags known'}, {memory:.0f} GiB of memory"


def versions(packages: Sequence[str] = PACKAGES) -> str:
    """Of Python, the packages, the C compiler and the C library."""
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = [os.environ.get("CC", "cc"), "--version"]
        found.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0])
    return ", ".join([*found, " ".join(platform.libc_ver())])


def paragraph(*parts: str) -> str:
    """Text in lines that a terminal holds."""
    return textwrap.fill(" ".join(part for part in parts if part), 120, break_long_words=False, break_on_hyphens=False)


def document(m: Measured, quick: bool) -> str:
    """RESULTS.md."""
    achieved = [goal.row() for goal in goals(m)]
    met = sum(row[-1] == "met" for row in achieved)
    flag = " --quick" if quick else ""
    large = " and ".join(rows_text(n) for n in m.sizes if n >= LARGE)
    parts = [
        "# Results of the benchmarks",
        paragraph(
            f"Made by `python -m benchmarks.report{flag}` after `pip install -e '.[bench]'` (and",
            "`'.[torch]'`, which is optional). Each number is the best of several rounds" + ("." if quick else ","),
            "" if quick else "in two or three passes that are minutes apart.",
            "Peers of one comparison ran right after each other, on all cores, and their results were checked equal",
            "first. What each peer does is said in [`peers`](peers/__init__.py).",
        ),
        paragraph(f"Machine: {machine()}.") + "\n\n" + paragraph(f"Versions: {versions()}."),
        "## Goals",
        paragraph(
            f"{met} of {len(achieved)} are met. A goal with many cases (laws, dtypes, {large} rows) is met if all of",
            "them meet it. A peer is compared by rows per second, with JAX arrays as inputs. C, numexpr and numba have",
            "memory for the result that they keep; against them jaxlaws may use that of its last result, with `out=`.",
        ),
        table(GOALS, achieved, (0, 1, 4, 5)),
        "## Speed",
        "![Rows per second against rows of a batch, for every law](speed.svg)",
        paragraph(
            "Million rows per second for some numbers of rows, and in brackets how many times as fast jaxlaws is. The",
            "limit of memory is reading the same columns and writing as many as the law has outputs, without the law.",
        ),
        *(f"### {name}\n\n{law_table(m, name)}" for name in m.laws),
        "## Gradients",
        "The derivatives by all inputs, in float32 and then in float64; numbers as above.",
        *(gradient_table(m, dtype) for dtype in DTYPES),
        "## Kinds of batches",
        "Two numbers are float32 and float64.",
        batch_table(m),
        "## Compile time",
        paragraph(
            "Seconds that the first call of a small batch takes more than a warm one; the slower of both dtypes.",
        ),
        compile_table(m),
    ]
    return "\n\n".join(parts) + "\n"


# Sections that can be made alone.


class Section(NamedTuple):
    """A section of RESULTS.md, from its heading on."""

    steps: tuple[Step, ...]
    quick: tuple[Step, ...]
    write: Callable[[Measured], str]


def section(heading: str, about: Sequence[str], goals: Sequence[Goal], *rest: str) -> str:
    """What sections have in common: their method, the machine, and the goals, before the rest."""
    return "\n\n".join(
        [
            f"## {heading}",
            paragraph(*about),
            paragraph(f"Machine: {machine()}."),
            paragraph(f"Versions: {versions(SOLVERS)}."),
            table(GOALS, [goal.row() for goal in goals], (0, 1, 4, 5)),
            *rest,
        ]
    )


def per_second(m: Measured, benchmark: str, *case: Any) -> Callable[[str], float]:
    """Problems per second of each peer; NaN if it was not measured."""
    return lambda peer: 1e6 * m.rate(benchmark, *case, peer)


def kinds(m: Measured, benchmark: str) -> dict[str, Callable[[str], float]]:
    """The same for all kinds of problems that were measured."""
    found = {kind: per_second(m, benchmark, kind) for kind in m.values.get("kind", ())}
    return {kind: rate for kind, rate in found.items() if not math.isnan(rate("jaxlaws"))}


def mixture(m: Measured) -> str:
    """The section about the search for mixtures."""

    def against(peer: str, kind: str) -> dict[str, float]:
        rate = per_second(m, "mixtures_per_second", kind)
        return {kind: rate("jaxlaws") / rate(peer)}

    def found(name: str, benchmark: str = "optimum") -> dict[str, float]:
        return {f"{m.rows.get(m._key(benchmark), 0):,} problems": m.figure(name, benchmark)}

    both = "bounds, caps, prior"
    power = math.log(m.time("domains", 20) / m.time("domains", 5), 20 / 5)
    rate = per_second(m, "mixtures_per_second", "bounds")("jaxlaws")
    compiling = m.compiling.get(m._key("domains", 20), math.nan)
    return section(
        "Mixture search",
        [
            "Random problems for `domain_mixture`. Optima are compared with the best that SLSQP finds from three",
            "starts and trust-constr from two, with bounds, tokens available, a prior and bounds on sums; a share",
            f"of {digits(m.figure('share convex', 'optimum'))} of these is convex. SLSQP and Clarabel solve one",
            "problem after another, in one thread, and are compared by problems per second: SLSQP starts at a",
            "mixture that meets all constraints and gets the gradient, and cvxpy brings the problem into the form",
            "of Clarabel once.",
            "[`bench_mixture.py`](bench_mixture.py) has the details.",
        ],
        [
            Goal("the best of SLSQP and trust-constr: worse by", 1e-9, "", found("worse than SciPy by"), most=True),
            Goal(
                "mixtures that are better than the gap allows: share", 0, "", found("share of invalid gaps"), most=True
            ),
            Goal("a gap below 1e-8: share of convex problems", 0.999, "", found("share of convex gaps below 1e-8")),
            Goal("SLSQP in a loop: problems per second", 500, "x", against("slsqp", "bounds")),
            Goal("Clarabel through cvxpy in a loop: problems per second", 200, "x", against("clarabel", both)),
            Goal("problems per second, in one batch", 100_000, "", {"bounds": rate}),
            Goal("5 domains: time of 20, as a power of their ratio", 2.5, "", {both: power}, most=True),
            Goal("itself in float64: error of float32", 1e-5, "", found("error where converged", "float32"), most=True),
            Goal(
                "itself in float64: errors of float32 said to have converged, share",
                0,
                "",
                found("share of wrong answers said to have converged", "float32"),
                most=True,
            ),
        ],
        "Problems per second, and in brackets how many times as fast jaxlaws is; all of them are convex.",
        rates(
            kinds(m, "mixtures_per_second"),
            peers={
                "jaxlaws": "**jaxlaws**",
                "slsqp": "SLSQP from SciPy",
                "slsqp_alone": "SLSQP, gradients of differences",
                "clarabel": "Clarabel through cvxpy",
            },
        ),
        paragraph(
            f"With 20 domains, the first call takes {digits(compiling)} s more than a warm one. The share of",
            f"searches that converged is {digits(m.figure('share converged', 'optimum'))} in float64, and",
            f"{digits(m.figure('share converged', 'float32'))} in float32.",
        ),
    )


def allocation(m: Measured) -> str:
    """The section about the allocation of compute."""
    where = f"{m.rows.get(m._key('exactness'), 0):,} budgets"
    error, gap = (m.figure(name, "exactness") for name in ("error of inputs", "largest gap"))
    seconds = m.time("allocations_per_second", "training", "jaxlaws")
    return section(
        "Allocation",
        [
            "Parameters and tokens of `chinchilla` for budgets from 1e18 to 1e27 FLOP: those of training, with",
            "bounds of the size, and with inference. SLSQP gets the derivatives and searches for both inputs;",
            "Brent's method searches for one, and gets the other from the budget. Both solve one problem after",
            "another, in one thread, and are compared by problems per second.",
            "[`bench_allocation.py`](bench_allocation.py) has the details.",
        ],
        [
            Goal("the closed form: largest error of the inputs, relative", 1e-8, "", {where: error}, most=True),
            Goal(f"{where}: seconds", 1, " s", {"training": seconds}, most=True),
            Goal("gaps: the largest", 1e-8, "", {where: gap}, most=True),
        ],
        "Problems per second, and in brackets how many times as fast jaxlaws is.",
        rates(
            kinds(m, "allocations_per_second"),
            peers={
                "jaxlaws": "**jaxlaws**",
                "slsqp": "SLSQP from SciPy",
                "brent": "Brent's method from SciPy",
                "closed_form": "the closed form in NumPy",
            },
        ),
    )


def fit(m: Measured) -> str:
    """The section about fits."""
    of_starts = per_second(m, "starts_per_second", "grid")
    of_groups = {
        f"{count} start{'s'[: count > 1]}": per_second(m, "groups_per_second", count)
        for count in m.values.get("count_of_starts", ())
    }
    laws = sorted(law for law in m.values.get("law", ()) if m.rows.get(m._key("recovery", law)))
    seeds = list(m.values.get("seed", ()))
    coefs = ("E", "A", "B", "alpha", "beta")
    labels = {"grid": "the grid", "distinct": "4,500 others", "default": "64 starts"}

    def of_chinchilla(name: str, starts: str, peer: str = "jaxlaws") -> float:
        return m.figure(name, "starts_per_second", starts, peer)

    def of_draws(name: str, seed: Any) -> float:
        return m.figure(name, "bootstrap", seed)

    above = {text: of_chinchilla("worse by", kind) for kind, text in labels.items()}
    away = {name: of_chinchilla(name, "default") for name in coefs}
    errors = {f"{name}, seed {seed}": abs(of_draws(name, seed) - 1) for seed in seeds for name in coefs}
    draws = max((m.rows.get(m._key("bootstrap", seed), 0) for seed in seeds), default=0)
    drawing = {f"seed {seed}": m.time("bootstrap", seed) for seed in seeds}
    published = {law: m.figure("objective", "published", law) - 1 for law in m.values.get("law", ())}
    covered = {law: abs(m.figure("covered", "recovery", law) - 0.9) for law in laws}
    lstsq = m.figure("difference", "linear")
    worse = m.figure("worse than SciPy by", "groups_per_second", 64, "jaxlaws")

    def recovery(law: str) -> list[str]:
        names = ("runs", "noise", "coefficients", "covered", "least", "most", "outside", "outside by chance")
        return [law, *(digits(m.figure(name, "recovery", law)) for name in names)]

    outside, chance, numbers = (
        sum(m.figure(name, "recovery", law) for law in laws)
        for name in ("outside", "outside by chance", "coefficients")
    )
    sets = max((m.rows.get(m._key("recovery", law), 0) for law in laws), default=0)
    seconds = {kind: m.time("starts_per_second", kind, "jaxlaws") for kind in labels}
    compiling = m.compiling.get(m._key("starts_per_second", "grid", "jaxlaws"), math.nan)
    few = m.rows.get(m._key("starts_per_second", "grid", "lbfgs"), 0)
    real = not math.isnan(of_starts("jaxlaws"))  # whether there were runs to fit
    of_runs = [
        "Starts of `chinchilla` and groups of `sft` per second, and in brackets how many times as fast jaxlaws is.",
        rates(
            {"chinchilla": of_starts, **{f"sft, {text}": rate for text, rate in of_groups.items()}},
            peers={
                "jaxlaws": "**jaxlaws**",
                "lbfgs": "L-BFGS-B from SciPy",
                "lbfgs_alone": "L-BFGS-B, gradients of differences",
                "curve_fit": "`curve_fit` from SciPy",
                "curve_fit_alone": "`curve_fit`, Jacobians of differences",
            },
        ),
        paragraph(
            "A fit of `chinchilla` takes",
            ", ".join(f"{digits(1000 * seconds[kind])} ms from {text}" for kind, text in labels.items()) + ";",
            f"the first call takes {digits(compiling)} s more than a warm one. A share of",
            f"{digits(of_chinchilla('share', 'grid'))} of the grid and {digits(of_chinchilla('share', 'distinct'))} of",
            "the others lead to the least objective, and L-BFGS-B gets there from",
            f"{digits(of_chinchilla('share', 'grid', 'lbfgs'))} of its starts.",
        ),
        "Standard errors from runs drawn again, over those of Besiroglu et al. 2024:",
        table(["seed", *coefs], [[str(seed), *(digits(of_draws(name, seed)) for name in coefs)] for seed in seeds]),
    ]
    return section(
        "Fits",
        [
            "`chinchilla` is fitted to 240 of Chinchilla's runs as in Besiroglu et al. 2024, from the grid of 4,500",
            "starts of Hoffmann et al. 2022. That has 25 pairs of exponents, and jaxlaws, which solves for the other",
            "coefficients, takes nothing else of a start; the 4,500 others have as many pairs. L-BFGS-B from SciPy",
            f"searches for the logarithms of E, A and B and both exponents, from {few} starts that are drawn from the",
            "grid, one after another in one thread, and is compared by starts per second. `sft` is fitted to its 42",
            "groups of runs, which `curve_fit` from SciPy does one by one, within the same bounds. The least objective",
            "of Chinchilla's runs is 0.0010182741, rounded up.",
            "[`bench_fit.py`](bench_fit.py) has the details.",
        ],
        [
            Goal("an objective of 0.0010182741: worse by, relative", 0, "", above, most=True),
            Goal("Besiroglu et al. 2024: coefficients, in standard errors", 1, "", away, most=True),
            Goal(
                "L-BFGS-B with the gradient: starts per second",
                500,
                "x",
                {"the grid": of_starts("jaxlaws") / of_starts("lbfgs")},
            ),
            Goal(f"{draws:,} fits to runs drawn again: seconds", 2, " s", drawing, most=True),
            Goal("Besiroglu et al. 2024: standard errors, relative", 0.1, "", errors, most=True),
            Goal("the best of `curve_fit` from 12 starts: worse by, relative", 1e-9, "", {"sft": worse}, most=True),
            Goal(
                "`curve_fit` with the Jacobian, as many starts: groups per second",
                50,
                "x",
                {text: rate("jaxlaws") / rate("curve_fit") for text, rate in of_groups.items()},
            ),
            Goal("`lstsq` from NumPy: coefficients, relative", 1e-6, "", {"data_constrained": lstsq}, most=True),
            Goal("published coefficients: worse by, relative", 1e-9, "", published, most=True),
            Goal("90 % intervals: share that cover the truth, from 0.9", 0.02, "", covered, most=True),
        ],
        *(of_runs if real else []),
        paragraph(
            f"Shares of 90 % intervals that cover the truth, for {sets:,} data sets that are made of a law and noise",
            "(relative, or in the mean loss): of all coefficients together, and of those with the least and the",
            "largest one. A share outside of 0.88 to 0.92 is found for",
            f"{outside:.0f} of {numbers:.0f} coefficients, where {digits(chance)} are to be expected by chance.",
        ),
        table(
            ["", "runs", "noise", "coefficients", "share", "least", "most", "outside", "by chance"],
            [recovery(law) for law in laws],
        ),
    )


def minima(m: Measured) -> str:
    """The section about the minima of fits."""
    objectives = ("squared", "relative", "huber_log")
    wrongly = ("only said to be", "not said to be")
    sizes = [str(size) for size in m.values.get("size", ())]

    def count(name: str, benchmark: str, *cases: tuple[str, str]) -> float:
        """A figure, summed over laws and objectives."""
        return sum(value for case in cases if not math.isnan(value := m.figure(name, benchmark, *case)))

    def share(benchmark: str, *names: str) -> dict[str, float]:
        """Of the fits of each objective, those that some figures count."""
        found = {}
        for objective in objectives:
            cases = [(law, objective) for law in m.values.get("law", ())]
            fits = count("fits", benchmark, *cases)
            if fits:
                found[objective] = sum(count(name, benchmark, *cases) for name in names) / fits
        return found

    def missed(benchmark: str) -> dict[str, float]:
        return {objective: 1 - there for objective, there in share(benchmark, "at the minimum").items()}

    def row(benchmark: str, law: str) -> list[str]:
        def cell(name: str, objective: str) -> str:
            fits = count("fits", benchmark, (law, objective))
            return f"{count(name, benchmark, (law, objective)):.0f} of {fits:.0f}" if fits else ""

        wrong = [count(name, benchmark, *((law, objective) for objective in objectives)) for name in wrongly]
        return [
            law + (" (real runs)" if benchmark == "real_runs" else ""),
            *(cell("at the minimum", objective) for objective in objectives),
            *(f"{number:.0f}" for number in wrong),
        ]

    rows = [
        row(benchmark, law)
        for benchmark in ("made_up_runs", "real_runs")
        for law in sorted(m.values.get("law", ()))
        if share(benchmark, "fits") and count("fits", benchmark, *((law, objective) for objective in objectives))
    ]
    drawn = {f"noise {size}": 1 - m.figure("draws converged", "draws", size) for size in sizes}
    return section(
        "Minima of fits",
        [
            "Fits of each law, for each objective, to 16, 40, 50, 100 and 500 runs that are made of it with errors of",
            "1, .2, .5, 3 and 1 %, the third with one run that diverged, and fits of four laws to seven tables of real",
            "runs. A fit is at its minimum if its objective is within 1e-9 of the best that SciPy finds from there,",
            "from the coefficients that the runs are made of, and from near both. It is to say that it converged if it",
            "is at its minimum, and only then. Draws are fits to runs that are drawn again, of grids of 4 sizes and 4",
            "lengths, by Huber's objective. [`bench_minima.py`](bench_minima.py) has the details.",
        ],
        [
            Goal("made-up runs: share not at the minimum", 1e-3, "", missed("made_up_runs"), most=True),
            Goal("made-up runs: share that says otherwise", 1e-3, "", share("made_up_runs", *wrongly), most=True),
            Goal("real runs: share not at the minimum", 1e-3, "", missed("real_runs"), most=True),
            Goal("real runs: share that says otherwise", 1e-3, "", share("real_runs", *wrongly), most=True),
            Goal("draws: share that does not converge", 5e-3, "", drawn, most=True),
        ],
        "Fits at their minimum, and how many say that they converged and are not there, or are there and do not.",
        table(["", *objectives, "not there", "not said"], rows),
    )


def files(m: Measured) -> str:
    """The section about files."""
    titles = {
        "jaxlaws": "**`jaxlaws predict`**",
        "jaxlaws_float32": "the same, `--float32`",
        "jaxlaws_gradients": "the same, `--gradients`",
        "polars": "polars",
        "duckdb": "DuckDB",
        "pyarrow_dictionary": "pyarrow, without predictions",
        "pyarrow_rewrite": "pyarrow, the same columns again",
    }

    def seconds(peer: str) -> float:
        return m.time("parquet_to_parquet", peer)

    def memory(peer: str) -> float:
        return m.figure("peak memory, MiB", "parquet_to_parquet", peer)

    rows = m.rows.get(m._key("parquet_to_parquet", "jaxlaws"), 0)
    where = f"{rows / 1e6:.0f} M rows"
    peers = [peer for peer in titles if not math.isnan(seconds(peer))]
    return section(
        "Files",
        [
            f"`jaxlaws predict parallel in.parquet -o out.parquet`, for {rows:,} rows of two groups; whole processes,",
            "from start to end, the best of three runs. polars and DuckDB join the coefficients to the rows. They and",
            "jaxlaws compress with Snappy; polars and jaxlaws keep the order of the rows.",
            "[`bench_files.py`](bench_files.py) has the details.",
        ],
        [
            Goal(
                "the better of polars and DuckDB: speed",
                1.2,
                "x",
                {where: min(seconds("polars"), seconds("duckdb")) / seconds("jaxlaws")},
            ),
            Goal("polars: memory", 1, "x", {where: memory("jaxlaws") / memory("polars")}, most=True),
            Goal(
                "pyarrow, reading and writing alone: time",
                1.25,
                "x",
                {where: seconds("jaxlaws") / seconds("pyarrow_rewrite")},
                most=True,
            ),
        ],
        table(
            ["", "seconds", "M rows per second", "peak memory, MiB"],
            [
                [titles[peer], digits(seconds(peer)), digits(rows / seconds(peer) / 1e6), digits(memory(peer))]
                for peer in peers
            ],
        ),
    )


SECTIONS = {
    "allocation": Section(
        (
            Step("allocations", "bench_allocation.py", "--problems 100000", "per_second", passes=2, in_turn=True),
            Step("optima of allocations", "bench_allocation.py", "--problems 100000", "exactness", in_turn=True),
        ),
        (Step("allocations", "bench_allocation.py", "--problems 10000 --seconds 0.02", in_turn=True),),
        allocation,
    ),
    "files": Section(
        (Step("files", "bench_files.py", "--rows 50000000", "jaxlaws or polars or duckdb or dictionary or rewrite"),),
        (Step("files", "bench_files.py", "--rows 2000000", "jaxlaws or polars or duckdb or dictionary or rewrite"),),
        files,
    ),
    "fit": Section(
        (
            Step("fits", "bench_fit.py", "--problems 10000", "per_second", passes=2, in_turn=True),
            Step("errors of fits", "bench_fit.py", "--problems 10000", "not per_second", in_turn=True),
        ),
        (Step("fits", "bench_fit.py", "--problems 1000 --seconds 0.02", in_turn=True),),
        fit,
    ),
    "minima": Section(
        (
            Step("minima of squares", "bench_minima.py", "--problems 2000", "not huber and not draws"),
            Step("robust minima", "bench_minima.py", "--problems 2000", "huber or draws"),
        ),
        (),
        minima,
    ),
    "mixture": Section(
        (
            Step("mixtures", "bench_mixture.py", "--problems 10000", "per_second or domains", passes=2, in_turn=True),
            Step("optima of mixtures", "bench_mixture.py", "--problems 10000", "optimum or float32", in_turn=True),
        ),
        (Step("mixtures", "bench_mixture.py", "--problems 1000 --seconds 0.02", in_turn=True),),
        mixture,
    ),
}


def with_section(text: str, section: str) -> str:
    """A document with a section in the place of that with the same heading, or at the end."""
    heading = section.partition("\n")[0]
    head, *rest = text.rstrip().split("\n\n## ")
    parts = [head, *("## " + part for part in rest)]
    places = [i for i, part in enumerate(parts) if part.partition("\n")[0] == heading]
    if places:
        parts[places[0]] = section
    else:
        parts.append(section)
    return "\n\n".join(parts) + "\n"


def plot(m: Measured, path: Path) -> None:
    """Speed against batch size: a row of panels per dtype, a panel per law."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style = {
        "jaxlaws": ("#d62728", 2.4),
        "c": ("#000000", 1.2),
        "torch": ("#ff7f0e", 1.2),
        "numpy": ("#1f77b4", 1.2),
        "numexpr": ("#2ca02c", 1.2),
        "numba": ("#9467bd", 1.2),
        "polars": ("#8c564b", 1.2),
    }
    matplotlib.rcParams.update(
        {"svg.hashsalt": "jaxlaws", "svg.fonttype": "none", "font.size": 9, "axes.grid": True, "grid.alpha": 0.25}
    )
    figure, axes = pyplot.subplots(
        len(DTYPES), len(m.laws), figsize=(2.1 * len(m.laws), 5), sharex=True, sharey=True, squeeze=False
    )
    handles: dict[str, Any] = {}
    for line, dtype in zip(axes, DTYPES, strict=True):
        for panel, name in zip(line, m.laws, strict=True):
            for peer, (color, width) in reversed(style.items()):
                points = [(n, 1e6 * m.law(name, "value", dtype, n, peer)) for n in m.sizes if n >= 2**10]
                points = [point for point in points if not math.isnan(point[1])]
                if points:
                    (handles[peer],) = panel.loglog(
                        *zip(*points, strict=True), color=color, linewidth=width, marker="o", markersize=width + 1
                    )
            panel.set_xscale("log", base=2)
            panel.spines[["top", "right"]].set_visible(False)
            if dtype == DTYPES[0]:
                panel.set_title(name, fontsize=10)
            else:
                panel.set_xlabel("rows of a batch")
        line[0].set_ylabel(f"rows per second, {dtype}")
    shown = [peer for peer in style if peer in handles]
    labels = [PEERS[peer].strip("*") for peer in shown]
    figure.legend([handles[peer] for peer in shown], labels, loc="upper center", ncols=len(shown), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller batches, no torch, no files")
    parser.add_argument("--output", type=Path, default=HERE, metavar="DIR", help="where to write (default: here)")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="DIR",
        help="keep the measurements there, and take what is there instead of measuring",
    )
    parser.add_argument("--only", choices=["laws", *SECTIONS], help="make this section of RESULTS.md alone")
    arguments = parser.parse_args()
    sections = {name: s for name, s in SECTIONS.items() if arguments.only in (None, name)}
    laws = arguments.only in (None, "laws")
    steps = [*(QUICK if arguments.quick else FULL)] if laws else []
    for section in sections.values():
        steps += section.quick if arguments.quick else section.steps
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        print("The machine is busy with other work: threads that wait for each other, as in C, will seem too slow.")
    with contextlib.ExitStack() as stack:
        folder = arguments.json or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = folder.resolve()  # pytest runs elsewhere
        folder.mkdir(parents=True, exist_ok=True)
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        found = measure(steps, folder, cache)
    if not found:
        sys.exit("nothing was measured")
    measured = Measured(found)
    arguments.output.mkdir(parents=True, exist_ok=True)
    target = arguments.output / "RESULTS.md"
    text = before = target.read_text() if target.exists() else "# Results of the benchmarks\n"
    if laws:
        text = document(measured, arguments.quick)
        plot(measured, arguments.output / "speed.svg")
        written = re.findall("^## .*", text, re.MULTILINE)
        for part in re.split("\n\n(?=## )", before.rstrip())[1:]:  # the sections that are made alone
            if part.partition("\n")[0] not in written:
                text = with_section(text, part)
    for section in sections.values():
        text = with_section(text, section.write(measured))
    target.write_text(text)
    print(f"wrote {target}" + (" and speed.svg" if laws else ""))


if __name__ == "__main__":
    main()
