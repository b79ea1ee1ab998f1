"""Whether fits end at their minimum: every law, objective and design of runs, against SciPy.

    pytest benchmarks/bench_minima.py --problems 10000 -s

A two-thousandth of `--problems` are the tables that are made of each law, objective and design: 16 to 500 runs with
errors of 0.2 to 3 % of the output, and one run that diverged in one of them. Real runs are read from `../shared`. Each
minimum is compared with the best that SciPy finds from there, from the coefficients that the runs are made of, and from
near both: by `least_squares` for squares, and for Huber's function by BFGS and L-BFGS-B in coordinates in which the
errors are alike in all directions, again and again until nothing is gained. A fit is at its minimum if its objective is
within 1e-9 of the best one, and is to say that it converged if it is, and only then. With fewer than 2,000 problems,
one law and one design stand for all.
"""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench_mixture import tell
from scipy.optimize import least_squares, minimize

import jaxlaws as jl
from jaxlaws.columns import from_columns
from jaxlaws.fitting.runs import sized
from jaxlaws.law import variables
from jaxlaws.numerics import plain
from jaxlaws.testing import groups_of, sample

SHARED = Path(__file__).parents[2] / "shared"
OBJECTIVES = ("squared", "relative", "huber_log")
DESIGNS = {  # runs, size of the errors, runs that diverged
    "16 runs, 1 %": (16, 0.01, 0),
    "40 runs, 0.2 %": (40, 0.002, 0),
    "50 runs, 0.5 %, one diverged": (50, 0.005, 1),
    "100 runs, 3 %": (100, 0.03, 0),
    "500 runs, 1 %": (500, 0.01, 0),
}
NEAR, DELTA = 1e-9, 1e-3
FIXED = {"distillation": ("E", "A", "B", "alpha", "beta", "k")}  # as its advice says


class Functions:
    """Errors and the objective of a law as functions of coefficients and runs; some coefficients may be fixed."""

    def __init__(self, law, objective, fixed):
        self.law, self.robust = law, objective == "huber_log"
        self.fields = [v for v in variables(law.coefs) if v.name not in fixed]
        shapes = [tuple(law.sizes[a] for a in v.shape) for v in self.fields]
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
        sizes = np.diff(ends)
        self.low, self.high = (np.repeat([v.bounds[i] for v in self.fields], sizes) for i in (0, 1))

        def errors(x, runs):
            inputs, measured, used = runs
            parts = zip(self.fields, shapes, ends[:-1], ends[1:], strict=True)
            coefs = law.coefs(**fixed, **{v.name: x[a:b].reshape(shape) for v, shape, a, b in parts})
            with plain():
                predicted = jax.vmap(lambda x: jnp.reshape(law.fn(coefs, x), -1))(inputs)
            if objective == "squared":
                found = predicted - measured
            elif objective == "relative":
                found = predicted / measured - 1
            else:
                found = jnp.log(jnp.where(predicted > 0, predicted / measured, jnp.nan))
            return jnp.where(used[:, None], found, 0).ravel()

        def value(x, runs):
            size = jnp.abs(errors(x, runs))
            inner = jnp.minimum(size, DELTA if self.robust else jnp.inf)
            return jnp.sum(inner * (size - inner / 2))

        self.errors, self.jacobian = jax.jit(errors), jax.jit(jax.jacfwd(errors))
        self.value, self.slope = jax.jit(value), jax.jit(jax.value_and_grad(value))


class Problem:
    """Runs of one group, for SciPy; their number is filled up to `rows`, so that nothing is compiled twice."""

    def __init__(self, functions, table, rows):
        law, given = functions.law, len(table[functions.law.input_columns[0]])
        place = np.minimum(np.arange(rows), given - 1)
        columns = [np.asarray(table[c], float)[place] for c in law.input_columns]
        measured = np.stack([table[c] for c in law.output_columns], -1)[place]
        self.runs = jax.device_put((from_columns(law, columns), measured, np.arange(rows) < given))
        self.fields, self.low, self.high, self.robust = (
            functions.fields,
            functions.low,
            functions.high,
            functions.robust,
        )
        self.errors, self.jacobian, self.value, self.slope = (
            functools.partial(lambda fn, x: fn(x, self.runs), fn)
            for fn in (functions.errors, functions.jacobian, functions.value, functions.slope)
        )
        self.rounding = 1e-26 * float((measured[:given] ** 2).sum())

    def numbers(self, coefs):
        """Coefficients as a vector."""
        return np.concatenate([np.ravel(np.asarray(getattr(coefs, v.name), float)) for v in self.fields])

    def polished(self, start):
        """The least objective that SciPy finds from a start."""
        x = np.clip(start, self.low, self.high)
        best = float(self.value(x))
        for attempt in range(12 if self.robust else 3):
            if not np.isfinite(best):
                return np.inf
            try:
                found = self.robust_step(x, attempt) if self.robust else self.squares_step(x)
            except (ValueError, np.linalg.LinAlgError):  # numbers beyond all bounds on the way
                return best
            less = float(self.value(found))
            if not less < best * (1 - 1e-11) and (attempt > 0 or not self.robust):
                return min(less, best)
            x, best = (found, less) if less < best else (x, best)
        return best

    def squares_step(self, x):
        """By `least_squares`."""

        def finite(values):
            return np.nan_to_num(np.asarray(values), nan=1e100, posinf=1e100, neginf=-1e100)

        return least_squares(
            lambda x: finite(self.errors(x)),
            x,
            lambda x: finite(self.jacobian(x)),
            bounds=(self.low, self.high),
            x_scale="jac",
            ftol=1e-15,
            xtol=1e-15,
            gtol=1e-15,
            max_nfev=500,
        ).x

    def robust_step(self, x, attempt):
        """By BFGS, or where bounds are in the way by L-BFGS-B."""
        jacobian = np.nan_to_num(np.asarray(self.jacobian(x)))
        scale = np.linalg.norm(jacobian, axis=0)
        scale = np.where(scale > 0, scale, 1)
        inside = ((x > self.low) & (x < self.high)).all()
        if inside and attempt % 2 == 0:
            _, singular, axes = np.linalg.svd(jacobian / scale, full_matrices=False)
            turn = axes.T / np.maximum(singular, 1e-7 * singular[0]) / scale[:, None]
        else:
            turn = np.diag(1 / scale)

        def function(z):
            point = x + turn @ z
            if ((point < self.low) | (point > self.high)).any():
                return 1e100, np.zeros(len(z))
            value, slope = (np.nan_to_num(np.asarray(v), nan=1e100) for v in self.slope(point))
            return float(value), turn.T @ slope

        zero = np.zeros(turn.shape[1])
        if inside and attempt % 2 == 0:
            found = minimize(function, zero, jac=True, method="BFGS", options={"maxiter": 500, "gtol": 1e-16})
            return x + turn @ found.x
        bounds = list(zip((self.low - x) * scale, (self.high - x) * scale, strict=True))
        options = {"maxiter": 500, "maxfun": 2000, "maxcor": 40, "ftol": 1e-16, "gtol": 1e-14}
        found = minimize(function, zero, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return np.clip(x + turn @ found.x, self.low, self.high)


def made(law, design, sets):
    """Runs of a law with errors, in groups, and the coefficients that they are made of."""
    rows, size, diverged = DESIGNS[design]
    coefs = next(iter(groups_of(law).values()))
    law = law if law.groups else sized(law, [*law.golden[0][1], *law.golden[0][2]])
    tables = []
    for seed in range(sets):
        random = np.random.default_rng([seed, rows])
        columns = sample(law, rows, seed=seed)
        output = np.asarray(law(coefs, from_columns(law, list(columns.values())))).reshape(rows, -1)
        error = size * random.normal(size=output.shape)
        output = output * np.exp(error) if (output > 0).all() else output + error * np.abs(output).mean()
        output[random.integers(rows, size=diverged)] *= 3
        tables.append(columns | dict(zip(law.output_columns, output.T, strict=True)))
    table = {name: np.concatenate([one[name] for one in tables]) for name in tables[0]}
    return law, table | {"group": np.repeat(np.arange(sets).astype(str), rows)}, coefs


def outcome(law, table, objective, fit, known, fixed):
    """Of each group, by how much its objective is more than the best one, and whether it says that it converged."""
    functions, groups = Functions(law, objective, fixed), table.get("group", np.zeros(len(fit.residuals))).astype(str)
    rows, found = max(np.unique(groups, return_counts=True)[1]), []
    for group, coefs in fit.coefs.items():
        mine = groups == group if "group" in table else slice(None)
        problem = Problem(functions, {name: values[mine] for name, values in table.items()}, rows)
        x = problem.numbers(coefs)
        value = float(problem.value(x))
        np.testing.assert_allclose(fit.value[group], value, rtol=1e-8, atol=problem.rounding)
        random = np.random.default_rng(0)
        starts = [x, x * np.exp(0.1 * random.normal(size=len(x)))]
        if known is not None:
            starts += [problem.numbers(known), problem.numbers(known) * np.exp(0.1 * random.normal(size=len(x)))]
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SciPy goes beyond all numbers, now and then
            best = min(value, *map(problem.polished, starts))
        found.append(((value - best) / max(best, problem.rounding), fit.converged[group]))
    return found


def told(clock, found):
    """What is reported of many fits."""
    worse, converged = (np.array(values) for values in zip(*found, strict=True))
    there = worse <= NEAR
    figures = {"fits": len(found), "at the minimum": there.sum(), "worst": worse.max(), "converged": converged.sum()}
    figures |= {"only said to be": (converged & ~there).sum(), "not said to be": (there & ~converged).sum()}
    tell(clock, figures)


def few_only(sets, stands_for_all):
    """Leave out what takes long where few problems are asked for."""
    if not sets and not stands_for_all:
        pytest.skip("needs --problems 2000")


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("law", jl.laws)
def test_made_up_runs(clock, request, law, objective):
    """All designs of one law."""
    sets = request.config.getoption("--problems") // 2000
    few_only(sets, (law, objective) == ("sft", "huber_log"))
    clock.benchmark.pedantic(lambda: None, rounds=1)
    with jax.enable_x64(True):
        tables = []
        for design in DESIGNS if sets else ["16 runs, 1 %"]:
            resized, table, known = made(jl.laws[law], design, max(1, sets))
            table["group"] = np.char.add(f"{design}, ", table["group"])
            if objective == "squared" or min(table[c].min() for c in resized.output_columns) > 0:
                tables.append(table)
        if not tables:
            pytest.skip("needs outputs above 0")
        table = {name: np.concatenate([one[name] for one in tables]) for name in tables[0]}
        fixed = {name: getattr(known, name) for name in FIXED.get(law, ())}
        fit = jl.fit(resized, table, objective=objective, shared=(), fixed=fixed)
        told(clock, outcome(resized, table, objective, fit, known, fixed))


RUNS = {  # file, and its columns of sizes, tokens and losses
    "chinchilla": ("data/chinchilla_epoch_svg.csv", "model_size", "training_tokens_derived", "loss"),
    "chinchilla, fewer": ("data/chinchilla_kyo_takano_llm.csv", "N", "D", "loss"),
    "farseer": ("data/scalebench_farseer_train.csv", "N", "D", "loss"),
    "step law": ("data/steplaw_moe_lr_bs_loss.csv", "N", "D", "loss"),
    "data constrained": ("data/sldbench_data_constrained_train.csv", "params", "tokens", "loss"),
    "ladder": ("cases/ladder_arc_easy_test.csv", "params", "tokens", "loss"),
    "one diverged": ("cases/outlier20.csv", "params", "tokens", "loss"),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("law", ["chinchilla", "skaling", "kaplan", "farseer"])
def test_real_runs(clock, request, law, objective):
    """Losses by sizes and tokens."""
    few_only(request.config.getoption("--problems") // 2000, False)
    found = []
    clock.benchmark.pedantic(lambda: None, rounds=1)
    for file, *names in RUNS.values():
        if not (SHARED / file).exists():
            pytest.skip("needs runs of others")
        runs = jl.read_table(str(SHARED / file))
        table = {
            name: runs[c].to_numpy().astype(float) for name, c in zip(("params", "tokens", "loss"), names, strict=True)
        }
        with jax.enable_x64(True):
            fit = jl.fit(jl.laws[law], table, objective=objective)
            found += outcome(jl.laws[law], table, objective, fit, None, {})
    told(clock, found)


@pytest.mark.parametrize("size", [0.005, 0.01, 0.03])
def test_draws(clock, request, size):
    """Fits to runs that are drawn again, from grids of 4 sizes and 4 lengths."""
    law, sets = jl.laws["chinchilla"], 40
    params, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 1e10, 4), np.geomspace(2e9, 2e11, 4)))
    loss = np.asarray(law("besiroglu2024", params=params, tokens=tokens))
    loss = loss * np.exp(size * np.random.default_rng(0).normal(size=(sets, 16)))
    table = {"params": np.tile(params, sets), "tokens": np.tile(tokens, sets), "loss": loss.ravel()}
    fit = jl.fit(law, table | {"group": np.repeat(np.arange(sets).astype(str), 16)}, objective="huber_log")
    draws = request.config.getoption("--problems") // 100
    found = []
    clock(lambda: found.append(jl.bootstrap(fit, max(2, draws))), draws * sets)
    converged = np.array(list(found[-1].converged.values()))
    tell(clock, {"fits converged": np.mean(list(fit.converged.values())), "draws converged": converged.mean()})
    assert converged.mean() >= 0.995
