"""The allocation of compute: how exact its answers are, and how many a second, against SciPy and the closed form.

    pytest benchmarks/bench_allocation.py --problems 100000 -s

Solvers that take one problem after another get a thousandth of the problems, and are compared by problems per second.
They get the derivatives, written by hand in NumPy.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
from bench_mixture import tell
from scipy.optimize import minimize, minimize_scalar

import jaxlaws as jl

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")

LAW, GROUP = jl.laws["chinchilla"], "besiroglu2024"
C = LAW.groups[GROUP]
SEED = 0


@pytest.fixture
def count(request):
    """How many problems there are in a batch."""
    return request.config.getoption("--problems")


def problems(kind, count):
    """Options of `allocate` for a batch."""
    rng = np.random.default_rng(SEED)
    options = {"budget": 10 ** rng.uniform(18, 27, count)}
    if kind == "training and inference":
        options["served"] = options["budget"] ** 0.5 * 10 ** rng.uniform(-1, 1, count)
    if kind == "bounds":
        options["params"] = np.sort(10 ** rng.uniform(9, 12, (2, count)), 0)
        options["params"][1] *= 1.1
    return options


def solve(options):
    """All of them, by jaxlaws."""
    cost = jl.costs.training_and_inference(options["served"]) if "served" in options else jl.costs.training
    low, high = options.get("params", (1e-6, 1e18))
    bounds = {"lower": {"params": low}, "upper": {"params": high}}
    return jax.block_until_ready(jl.allocate(LAW, GROUP, budget=options["budget"], cost=cost, **bounds))


def loss(params, tokens):
    """The law in NumPy."""
    return C.E + C.A * params**-C.alpha + C.B * tokens**-C.beta


def with_closed_form(options):
    """Hoffmann et al. 2022, appendix D.3, in NumPy; params and tokens."""

    def run():
        g = (C.alpha * C.A / (C.beta * C.B)) ** (1 / (C.alpha + C.beta))
        params = g * (options["budget"] / 6) ** (C.beta / (C.alpha + C.beta))
        if "params" in options:
            params = np.clip(params, *options["params"])
        return params, options["budget"] / 6 / params

    return run


def tokens_for(log_params, budget, served):
    """What the budget leaves for tokens."""
    return np.maximum(budget / np.exp(log_params) - 2 * served, 1e-6) / 6


def each(options):
    """The numbers of one problem after another."""
    count = len(options["budget"])
    served = options.get("served", np.zeros(count))
    low, high = np.log(options.get("params", np.full((2, count), [[1e-6], [1e18]])))
    return zip(options["budget"], served, low, high, strict=True)


def with_slsqp(options):
    """A loop over SLSQP from SciPy, over the logarithms of both inputs, from the middle of what the budget allows."""

    def one(budget, served, low, high):
        def value(x):
            return loss(*np.exp(x))

        def gradient(x):
            n, d = np.exp(x)
            return np.array([-C.alpha * C.A * n**-C.alpha, -C.beta * C.B * d**-C.beta])

        def left(x):
            n, d = np.exp(x)
            return np.log(budget / (6 * n * d + 2 * n * served))

        def left_jacobian(x):
            _, d = np.exp(x)
            return np.array([-1.0, -6 * d / (6 * d + 2 * served)])

        start = np.clip(0.5 * np.log(budget / 6), low, high)
        return minimize(
            value,
            [start, np.log(tokens_for(start, budget, served))],
            jac=gradient,
            method="SLSQP",
            bounds=[(low, high), (-14, 41)],
            constraints={"type": "ineq", "fun": left, "jac": left_jacobian},
            options={"ftol": 1e-13, "maxiter": 200},
        ).x

    return lambda: np.exp([one(*numbers) for numbers in each(options)]).T


def with_brent(options):
    """A loop over Brent's method from SciPy, along the sizes that the budget allows."""

    def one(budget, served, low, high):
        high = min(high, np.log(budget / (2 * served + 6e-6))) if served else high
        return minimize_scalar(
            lambda x: loss(np.exp(x), tokens_for(x, budget, served)),
            bounds=(max(low, 0), min(high, np.log(budget / 6))),
            method="bounded",
            options={"xatol": 1e-10},
        ).x

    def run():
        sizes = np.array([one(*numbers) for numbers in each(options)])
        return np.exp(sizes), tokens_for(sizes, options["budget"], options.get("served", 0.0))

    return run


PEERS = {"closed_form": with_closed_form, "slsqp": with_slsqp, "brent": with_brent}


@pytest.mark.parametrize("peer", ["jaxlaws", *PEERS])
@pytest.mark.parametrize("kind", ["training", "bounds", "training and inference"])
def test_allocations_per_second(clock, count, kind, peer):
    """All of them are convex in the logarithms of the inputs."""
    options = problems(kind, count)
    few = max(1, count // 1000)
    some = {name: value[..., :few] for name, value in options.items()}
    if peer == "jaxlaws":

        def check(plan):
            assert np.asarray(plan.converged).mean() > 0.9999
            params, tokens = with_brent(some)()
            excess = plan.loss[:few] / loss(params, tokens) - 1
            assert excess.max() < 1e-9
            assert excess.min() > -1e-6  # Brent's method does not try the bounds themselves

        clock(lambda: solve(options), count, check)
        return
    if peer == "closed_form":
        if "served" in options:
            pytest.skip("with inference there is no closed form")
        some, few = options, count

    def check_few(found):
        np.testing.assert_allclose(loss(*found), solve(some).loss, rtol=1e-6)

    clock(PEERS[peer](some), few, check_few)


def test_exactness(clock, count):
    """Inputs against the closed form, and what the gaps are."""
    options = problems("training", count)
    found = []
    clock(lambda: found.append(solve(options)), count)
    plan = found[-1]
    params, tokens = with_closed_form(options)()
    errors = [np.abs(plan.inputs.params / params - 1), np.abs(plan.inputs.tokens / tokens - 1)]
    figures = {
        "error of inputs": np.max(errors),
        "largest gap": np.max(plan.gap),
        "share converged": np.mean(plan.converged),
    }
    tell(clock, figures)
    assert figures["error of inputs"] <= 1e-8
    assert (loss(params, tokens) >= plan.loss - plan.gap).all()
