"""The search for mixtures: how good its answers are, and how many a second, against solvers of one problem at a time.

    pytest benchmarks/bench_mixture.py --problems 10000 -s

Solvers that take one problem after another get a hundredth of the problems, and are compared by problems per second.
They get the derivatives of the loss, written by hand in NumPy, or as cvxpy's parameters, so that a problem is brought
into the solver's form once. `-s` shows what the answers are like.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings

import jax
import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, minimize

import jaxlaws as jl

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")

LAW = jl.laws["domain_mixture"]
GROUP = "410M"
EPS = 1e-6  # of the law
SEED = 0


@pytest.fixture
def count(request):
    """How many problems there are in a batch."""
    return request.config.getoption("--problems")


# Problems: random ones, each with a mixture strictly inside of all constraints.

CONSTRAINTS = {
    "bounds": (),
    "bounds, caps, prior": ("caps", "prior"),
    "all": ("caps", "prior", "sums"),
}


def problems(kind, count, coefs, seed=SEED, convex=False):
    """Options of `optimize_mixture` for a batch, and the mixtures inside; convex: no log has a weight above 0."""
    rng = np.random.default_rng(seed)
    k = coefs.coef_log.shape[-1]
    weights = rng.dirichlet(np.ones(k), count)
    if convex:
        while (bent := np.flatnonzero((bends(coefs, weights) > 0).any(-1))).size:
            weights[bent] = rng.dirichlet(np.ones(k), bent.size)
    inside = rng.dirichlet(np.full(k, 3), count)
    options = {
        "weights": weights,
        "lower": inside * rng.uniform(0, 0.99, (count, 1)),
        "upper": np.minimum(1, inside * rng.uniform(1.2, 4, (count, 1))),
    }
    if "caps" in CONSTRAINTS[kind]:
        budget = 10.0 ** rng.uniform(9, 12, count)
        epochs = rng.uniform(1, 5, count)
        options |= {
            "budget": budget,
            "max_epochs": np.repeat(epochs[:, None], k, -1),
            "available": inside * (budget / epochs)[:, None] * rng.uniform(1.1, 5, (count, k)),
        }
    if "prior" in CONSTRAINTS[kind]:
        options |= {"prior": rng.dirichlet(np.full(k, 5), count), "strength": rng.choice([0.01, 0.1, 0.3], count)}
    if "sums" in CONSTRAINTS[kind]:
        sums = np.stack([np.arange(k) < k // 2, np.arange(k) % 2 == 0]).astype(float)
        totals = inside @ sums.T
        options |= {
            "sums": np.repeat(sums[None], count, 0),
            "sum_lower": totals - rng.uniform(0.01, 0.2, totals.shape),
            "sum_upper": totals + rng.uniform(0.01, 0.2, totals.shape),
            "strength": options["strength"] * rng.integers(2, size=count),  # half of them without
        }
    return options, inside


def bends(coefs, weights):
    """The weights of the logs of the proportions in what is minimised; with none above 0 it is convex."""
    return np.einsum("...i,...ij->...j", weights, coefs.coef_log)


def first(options, count):
    """The first problems of a batch."""
    return {name: value[:count] for name, value in options.items()}


def solve(group, options, law=LAW):
    """All of them, by jaxlaws."""
    return jax.block_until_ready(jl.optimize_mixture(law, group, **options))


def minima(best):
    """What is minimised."""
    return np.asarray(best.loss + best.penalty)


# Solvers of one problem.


class One:
    """A problem of a batch, in NumPy: minimise `constant + linear @ p + bent @ log(p + EPS)` plus the penalty."""

    def __init__(self, coefs, options, i):
        given = {name: value[i] for name, value in options.items()}
        weights = given["weights"]
        self.constant, self.linear = weights @ coefs.intercept, weights @ coefs.coef_linear
        self.bent = weights @ coefs.coef_log
        self.lower, self.upper = given["lower"], given["upper"]
        if "budget" in given:
            self.upper = np.minimum(self.upper, given["max_epochs"] * given["available"] / given["budget"])
        k = self.lower.size
        self.strength = given.get("strength", 0.0)
        self.log_prior = np.log(given.get("prior", np.ones(k)))
        self.sums = given.get("sums", np.zeros((0, k)))
        self.sum_lower, self.sum_upper = given.get("sum_lower", np.zeros(0)), given.get("sum_upper", np.zeros(0))

    def value(self, p):
        """What is minimised."""
        p = np.maximum(p, 0)  # solvers look a little beyond the bounds
        found = self.constant + self.linear @ p + self.bent @ np.log(p + EPS)
        if self.strength:
            found += self.strength * (p @ (np.log(np.maximum(p, 1e-300)) - self.log_prior))
        return found

    def gradient(self, p):
        """Its first derivatives."""
        p = np.maximum(p, 0)
        found = self.linear + self.bent / (p + EPS)
        if self.strength:
            found += self.strength * (np.log(np.maximum(p, 1e-300)) - self.log_prior + 1)
        return found

    def hessian(self, p):
        """Its second derivatives."""
        p = np.maximum(p, 1e-15)
        return np.diag(-self.bent / (p + EPS) ** 2 + self.strength / p)

    def left(self, p):
        """What each inequality leaves; negative where it is broken."""
        total = self.sums @ p
        return np.concatenate([p - self.lower, self.upper - p, total - self.sum_lower, self.sum_upper - total])

    def feasible(self, p, inside):
        """The mixture nearest to p on the way to the one inside."""
        p = p + (1 - p.sum()) / p.size
        over = np.maximum(-self.left(p), 0)
        share = np.max(over / (over + self.left(inside)))
        return (1 - share) * p + share * inside

    @functools.cached_property
    def bounds(self):
        """Those of the proportions."""
        return Bounds(self.lower, self.upper)


def slsqp(one, start, ftol=1e-9, gradient=True):
    """SLSQP from SciPy: the answer."""
    constraints = [{"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda p: np.ones_like(p)}]
    if one.sums.size:
        jacobian = np.concatenate([one.sums, -one.sums])
        ends = np.concatenate([one.sum_lower, -one.sum_upper])
        constraints.append({"type": "ineq", "fun": lambda p: jacobian @ p - ends, "jac": lambda p: jacobian})
    options = {"ftol": ftol, "maxiter": 500}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # steps that are clipped to the bounds
        return minimize(
            one.value,
            start,
            jac=one.gradient if gradient else None,
            method="SLSQP",
            bounds=one.bounds,
            constraints=constraints,
            options=options,
        ).x


def trust_constr(one, start):
    """The interior-point method of SciPy: the answer."""
    matrix = np.vstack([np.ones(start.size), one.sums])
    constraint = LinearConstraint(matrix, np.append(1, one.sum_lower), np.append(1, one.sum_upper))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return minimize(
            one.value,
            start,
            jac=one.gradient,
            hess=one.hessian,
            method="trust-constr",
            bounds=one.bounds,
            constraints=constraint,
            options={"gtol": 0, "xtol": 1e-8, "barrier_tol": 1e-10, "maxiter": 500},  # with a gtol it stops too early
        ).x


def with_slsqp(coefs, options, inside):
    """A loop over SLSQP, from the mixtures inside."""
    return lambda: np.array([slsqp(One(coefs, options, i), start) for i, start in enumerate(inside)])


def with_slsqp_alone(coefs, options, inside):
    """The same without the gradient, which it makes of differences."""
    return lambda: np.array([slsqp(One(coefs, options, i), start, gradient=False) for i, start in enumerate(inside)])


def with_clarabel(coefs, options, inside):
    """A loop over Clarabel, an interior-point method for cones, of one problem whose parameters change."""
    cp = pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    k = inside.shape[-1]
    p = cp.Variable(k)
    linear, lower, upper = cp.Parameter(k), cp.Parameter(k), cp.Parameter(k)
    bent, strength = cp.Parameter(k, nonneg=True), cp.Parameter(nonneg=True)
    penalised = "prior" in options
    objective = linear @ p - bent @ cp.log(p + EPS) - (strength * cp.sum(cp.entr(p)) if penalised else 0)
    program = cp.Problem(cp.Minimize(objective), [cp.sum(p) == 1, p >= lower, p <= upper])
    assert program.is_dcp(dpp=True)

    def run():
        found = np.empty_like(inside)
        for i in range(len(inside)):
            one = One(coefs, options, i)
            linear.value = one.linear - one.strength * one.log_prior
            bent.value, lower.value, upper.value = -one.bent, one.lower, one.upper
            strength.value = one.strength
            program.solve(solver=cp.CLARABEL)
            found[i] = p.value
        return found

    return run


PEERS = {"slsqp": with_slsqp, "slsqp_alone": with_slsqp_alone, "clarabel": with_clarabel}


# The benchmarks.


@pytest.mark.parametrize("peer", ["jaxlaws", *PEERS])
@pytest.mark.parametrize("kind", ["bounds", "bounds, caps, prior"])
def test_mixtures_per_second(clock, count, kind, peer):
    """Convex problems, which all of the solvers take."""
    coefs = LAW.groups[GROUP]
    options, inside = problems(kind, count, coefs, convex=True)
    few = max(1, count // 100)
    if peer == "jaxlaws":

        def check(best):
            assert np.asarray(best.converged).mean() > 0.999
            found = with_slsqp(coefs, options, inside[:few])()
            values = [One(coefs, options, i).value(p) for i, p in enumerate(found)]
            np.testing.assert_allclose(minima(best)[:few], values, atol=1e-5)

        clock(lambda: solve(GROUP, options), count, check)
        return
    options = first(options, few)

    def check_few(found):
        values = [One(coefs, options, i).value(p) for i, p in enumerate(found)]
        np.testing.assert_allclose(values, minima(solve(GROUP, options)), atol=1e-5)

    clock(PEERS[peer](coefs, options, inside[:few]), few, check_few)


def synthetic(k):
    """A law of the form of domain_mixture with as many domains as are asked for."""
    rng = np.random.default_rng(SEED)
    coefs = LAW.coefs(
        intercept=rng.uniform(1, 3, k),
        coef_linear=rng.uniform(-0.1, 0.3, (k, k)) - np.diag(rng.uniform(0.3, 1, k)),
        coef_log=-rng.uniform(0, 2e-3, (k, k)) - np.diag(rng.uniform(0.02, 0.04, k)),
    )
    return dataclasses.replace(LAW, groups={"synthetic": coefs}, golden=())


@pytest.mark.parametrize("domains", [5, 20])
def test_domains(clock, count, domains):
    """What more domains cost."""
    law = synthetic(domains)
    options, _ = problems("bounds, caps, prior", count, law.groups["synthetic"])

    def check(best):
        assert np.asarray(best.converged).mean() > 0.999
        assert np.median(best.gap) < 1e-8

    clock(lambda: solve("synthetic", options, law), count, check)


def random_groups(count):
    """Names of groups, and their coefficients."""
    names = [list(LAW.groups)[i] for i in np.random.default_rng(SEED).integers(len(LAW.groups), size=count)]
    return names, [LAW.groups[name] for name in names]


def best_of_scipy(one, inside, rng):
    """The least value of mixtures that SciPy finds, and of the same moved to where all constraints hold."""
    anywhere = np.clip(rng.dirichlet(np.ones(inside.size)), one.lower, one.upper)
    found = [slsqp(one, start, ftol=1e-15) for start in (inside, anywhere, (inside + anywhere) / 2)]
    found += [trust_constr(one, start) for start in (inside, (inside + anywhere) / 2)]
    usable = [p for p in found if one.left(p).min() >= -1e-10 and abs(p.sum() - 1) <= 1e-10]
    feasible = [one.feasible(p, inside) for p in (*found, inside)]
    return min((one.value(p) for p in usable), default=math.inf), min(map(one.value, feasible))


def test_optimum(clock, count):
    """Problems with every kind of constraint, convex or not, against the best of SLSQP and trust-constr."""
    count = max(1, count // 10)
    names, coefs = random_groups(count)
    options, inside = problems("all", count, jl.stack([LAW.groups[GROUP]]), seed=SEED + 1)
    found = []
    clock(lambda: found.append(solve(names, options)), count)
    best = found[-1]
    rng = np.random.default_rng(SEED)
    ones = [One(c, options, i) for i, c in enumerate(coefs)]
    scipy, feasible = np.transpose([best_of_scipy(one, p, rng) for one, p in zip(ones, inside, strict=True)])
    own = np.array([one.value(p) for one, p in zip(ones, np.asarray(best.proportions), strict=True)])
    convex = np.array([(one.bent <= 0).all() for one in ones])
    excess, lower = own - scipy, own - np.asarray(best.gap)
    figures = {
        "worse than SciPy by": excess.max(),
        "share worse than SciPy by 1e-9": np.mean(excess > 1e-9),
        "share of invalid gaps": np.mean(lower > feasible + 1e-14 * np.abs(own)),
        "share of convex gaps below 1e-8": np.mean(np.asarray(best.gap)[convex] < 1e-8),
        "share converged": np.mean(best.converged),
        "share convex": convex.mean(),
        "share compared": np.isfinite(scipy).mean(),
    }
    tell(clock, figures)
    assert figures["worse than SciPy by"] <= 1e-9
    assert figures["share of invalid gaps"] == 0


def test_float32(clock, count):
    """The same problems in both precisions."""
    count = max(1, count // 10)
    names, _ = random_groups(count)
    options, _ = problems("all", count, LAW.groups[GROUP], seed=SEED + 2)
    options = {name: value.astype(np.float32) for name, value in options.items()}
    found = []
    clock(lambda: found.append(solve(names, options)), count)
    single, double = found[-1], solve(names, {name: value.astype(np.float64) for name, value in options.items()})
    converged = np.asarray(single.converged)
    error = np.abs(minima(single).astype(np.float64) - minima(double))
    figures = {
        "error where converged": error[converged].max(),
        "share of wrong answers said to have converged": np.mean(converged & (error > 1e-5)),
        "share converged": converged.mean(),
    }
    tell(clock, figures)
    assert figures["share of wrong answers said to have converged"] == 0


def tell(clock, figures):
    """Print, and keep beside the times."""
    figures = {name: float(value) for name, value in figures.items()}
    clock.benchmark.extra_info |= figures
    print(f"\n{figures}")
