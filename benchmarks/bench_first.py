"""How long one waits for the compiler: first calls in a new process, and batches of many lengths.

    pytest benchmarks/bench_first.py -s

Each is a process of its own, in which the time is taken after the imports: with nothing kept from earlier ones, and
again with what the first one has kept. `-s` shows seconds, programs compiled or loaded, and memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SETUP = """
import json, resource, time
import jax, numpy as np
import jaxlaws as jl

made, loaded = [], []
def note(event, duration, **_):
    made.extend([event] * event.endswith("backend_compile_duration"))
    loaded.extend([event] * event.endswith("load_duration"))
jax.monitoring.register_event_duration_secs_listener(note)
mixture, chinchilla, parallel = (jl.laws[name] for name in ("domain_mixture", "chinchilla", "parallel"))
rng = np.random.default_rng(0)
sizes = np.unique(np.geomspace(1, 5000, 30).astype(int) + np.arange(30))
rows = np.geomspace(1e3, 2e5, 100).astype(int)
n, d = np.exp(rng.uniform([[18.0], [21.0]], [[23.0], [26.0]], (2, 60)))
noise = 1 + 0.01 * rng.normal(size=60)
runs = {"params": n, "tokens": d, "loss": (1.8 + 482 / n**0.348 + 2085 / d**0.366) * noise}
start = time.perf_counter()
"""
REPORT = """
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "compiled": len(made), "loaded": len(loaded), "MB": peak}))
"""
CALLS = {
    "first prediction": "jax.block_until_ready(parallel('pile', num_params=np.full(1000, 1e9), parallel_size=2))",
    "first optimize_mixture": "jl.optimize_mixture(mixture, '410M', upper=0.5)",
    "first optimize_mixture, 40 domains": """
coefs = {v.name: np.resize(getattr(mixture.groups["410M"], v.name), (40,) * len(v.shape))
         for v in jl.variables(mixture.coefs)}
jl.optimize_mixture(__import__("dataclasses").replace(mixture, groups={"g": mixture.coefs(**coefs)}, golden=()), "g")
""",
    "first allocate": "jl.allocate(chinchilla, 'besiroglu2024', budget=1e22)",
    "first fit": "jl.fit(chinchilla, runs)",
    "30 batch sizes of optimize_mixture": """
for size in sizes:
    jl.optimize_mixture(mixture, "410M", weights=rng.dirichlet(np.ones(5), size), upper=0.5)
""",
    "30 batch sizes of allocate": """
for size in sizes:
    jl.allocate(chinchilla, "besiroglu2024", budget=np.geomspace(1e20, 1e24, size))
""",
    "100 lengths of predictions": """
for count in rows:
    jax.block_until_ready(parallel("pile", num_params=np.full(count, 1e9), parallel_size=np.full(count, 2.0)))
""",
}


@pytest.mark.parametrize("call", CALLS)
def test_first(benchmark, call, tmp_path):
    """Seconds with nothing kept, and with programs kept by the process before."""
    found = []

    def process():
        environment = os.environ | {"JAXLAWS_CACHE": str(tmp_path)}
        command = [sys.executable, "-c", SETUP + CALLS[call] + REPORT]
        output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        found.append(json.loads(output))

    process()
    benchmark.pedantic(process, rounds=1, iterations=1)
    for kept, each in zip(("nothing kept", "kept"), found, strict=True):
        benchmark.extra_info |= {f"{name}, {kept}": value for name, value in each.items()}
        text = "{seconds:.2f} s, {compiled} compiled, {loaded} loaded, {MB:.0f} MB".format(**each)
        print(f"\n{call}, {kept}: {text}", end="")
    assert found[1]["loaded"] or not found[0]["compiled"]
