"""Fits: how good they are, how long they take, and whether their errors are right, against SciPy and NumPy.

    OPENBLAS_NUM_THREADS=1 pytest benchmarks/bench_fit.py --problems 10000 -s

`--problems` sets how much is done: a hundredth of it are the starts that SciPy gets, which are compared by starts per
second; a tenth, the data sets made of a law and noise; two fifths, the draws of the bootstrap. Real runs are read from
`../shared/data`, and what needs them is skipped without them. SciPy solves small problems, for which several threads of
BLAS wait for each other most of the time. `-s` shows what the fits are like.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
import sampling
from bench_mixture import tell
from scipy.optimize import curve_fit, minimize
from scipy.stats import binom

import jaxlaws as jl

DATA = Path(__file__).parents[2] / "shared" / "data"
SEED = 0
MANY = 10_000  # problems; with fewer of them, what takes long is left out


@pytest.fixture
def count(request):
    """How much is done."""
    return request.config.getoption("--problems")


def long_only(count, case):
    """Leave out some cases where few problems are asked for, and others stand for them."""
    if case and count < MANY:
        pytest.skip(f"needs --problems {MANY}")


@functools.cache
def runs(name):
    """A table of real training runs."""
    path = DATA / name
    if not path.exists():
        pytest.skip("needs real training runs")
    return jl.read_table(str(path))


# Chinchilla: loss of 240 runs from parameters and tokens.

CHINCHILLA = jl.laws["chinchilla"]
LEAST = 0.0010182741  # what the objective is at the best fit, rounded up
PUBLISHED = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}  # Besiroglu et al. 2024
ERRORS = {"E": 0.0257, "A": 124.5, "B": 1293, "alpha": 0.0154, "beta": 0.0206}  # the standard errors there
DELTA = 1e-3
# The grid of Hoffmann et al. 2022: both exponents, and the logarithms of E, A and B.
EXPONENTS, WEIGHTS = (0, 0.5, 1, 1.5, 2), (0, 5, 10, 15, 20, 25)
GRID = np.array([*itertools.product(EXPONENTS, EXPONENTS, (-1, -0.5, 0, 0.5, 1), WEIGHTS, WEIGHTS)], float)
STARTS = {
    "grid": dict(zip(("alpha", "beta", "E", "A", "B"), [*GRID.T[:2], *np.exp(GRID.T[2:])], strict=True)),
    "distinct": len(GRID),
    "default": 64,
}


def chinchilla_runs():
    """The runs of Besiroglu et al. 2024, who leave out the five largest losses."""
    table = runs("chinchilla_epoch_svg.csv")
    params, tokens, loss = (table[c].to_numpy() for c in ("model_size", "training_tokens_derived", "loss"))
    kept = np.argsort(loss)[:-5]
    return {"params": params[kept], "tokens": tokens[kept], "loss": loss[kept]}


def with_lbfgs(table, starts, gradient=True):
    """A loop over L-BFGS-B from SciPy, in the logarithms of E, A and B; what is left of the objective.

    With its own tolerances it ends where a step gains less than 2e-9, which is too early for an objective of 1e-3; but
    a gradient of differences is not good enough for others.
    """
    log_params, log_tokens, log_loss = (np.log(table[name]) for name in ("params", "tokens", "loss"))

    def parts(x):
        alpha, beta, e, a, b = x
        terms = np.stack([a - alpha * log_params, b - beta * log_tokens, np.full_like(log_loss, e)])
        top = terms.max(0)
        shares = np.exp(terms - top)
        total = shares.sum(0)
        error = np.log(total) + top - log_loss
        force = np.clip(error, -DELTA, DELTA)
        return force @ (error - force / 2), force, shares, total

    def value(x):
        return parts(x)[0]

    def value_and_gradient(x):
        value, force, shares, total = parts(x)
        of_params, of_tokens, of_constant = shares * (force / total)
        slopes = -of_params @ log_params, -of_tokens @ log_tokens, of_constant.sum(), of_params.sum(), of_tokens.sum()
        return value, np.array(slopes)

    def one(start):
        if not gradient:
            return minimize(value, start, method="L-BFGS-B").fun
        options = {"ftol": 1e-12, "gtol": 1e-6, "maxiter": 2000, "maxfun": 5000}
        return minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options).fun

    return np.array([one(start) for start in starts])


@pytest.mark.parametrize(
    ("starts", "peer"),
    [
        ("grid", "jaxlaws"),
        ("grid", "lbfgs"),
        ("grid", "lbfgs_alone"),
        ("distinct", "jaxlaws"),
        ("default", "jaxlaws"),
    ],
)
def test_starts_per_second(clock, count, starts, peer):
    """The fit of Hoffmann et al. 2022, appendix D.2."""
    long_only(count, starts == "distinct")
    table = chinchilla_runs()
    if peer == "jaxlaws":
        found, rows = [], len(GRID) if starts == "grid" else STARTS[starts]
        clock(lambda: found.append(jl.fit(CHINCHILLA, table, starts=STARTS[starts])), rows)
        (value,), (share,) = found[-1].value.values(), found[-1].share.values()
        coefs = jl.as_dict(found[-1].coefs["all_data"])
        away = {name: abs(coefs[name] - PUBLISHED[name]) / ERRORS[name] for name in PUBLISHED}
        np.testing.assert_allclose(value, chinchilla_objective(table, coefs), rtol=1e-9)
        tell(clock, {"worse by": value / LEAST - 1, "share": share, **away})
        assert value <= LEAST
        return
    few = count // (100 if peer == "lbfgs" else 400)
    some = np.random.default_rng(SEED).permutation(GRID)[: max(1, few)]
    found = []
    clock(lambda: found.append(with_lbfgs(table, some, peer == "lbfgs")), len(some))
    tell(clock, {"worse by": found[-1].min() / LEAST - 1, "share": np.mean(found[-1] < LEAST * (1 + 1e-6))})
    assert found[-1].min() > LEAST * (1 - 1e-6)
    if peer == "lbfgs":
        assert found[-1].min() < LEAST * (1 + 1e-6)


def chinchilla_objective(table, c):
    """Huber's function of the errors of the logarithm, in NumPy."""
    predicted = c["E"] + c["A"] * table["params"] ** -c["alpha"] + c["B"] * table["tokens"] ** -c["beta"]
    size = np.abs(np.log(predicted / table["loss"]))
    return np.where(size > DELTA, DELTA * (size - DELTA / 2), size**2 / 2).sum()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bootstrap(clock, count, seed):
    """Standard errors from fits to runs that are drawn again."""
    draws = max(2, count * 2 // 5)
    fit = jl.fit(CHINCHILLA, chinchilla_runs())
    found = []
    clock(lambda: found.append(jl.bootstrap(fit, draws, seed=seed)), draws)
    errors = jl.as_dict(found[-1].stderr["all_data"])
    converged = found[-1].converged["all_data"]
    tell(clock, {"converged": converged, **{name: errors[name] / ERRORS[name] for name in ERRORS}})
    assert converged > 0.99


# sft: 42 groups of 12 runs.

SFT = jl.laws["sft"]
# alpha, and L_inf over the least loss, a sensible pair of both first.
SFT_STARTS = ((0.2, 0.5), *sorted({*itertools.product((0.05, 0.2, 0.5, 1), (0.0, 0.5, 0.95))} - {(0.2, 0.5)}))


def sft_groups():
    """Size and loss of the runs of each group."""
    table = runs("sldbench_sft_train.csv")
    group, size, loss = (table[c].to_numpy(zero_copy_only=False) for c in ("group", "sft_data_size", "sft_loss"))
    return {name: (size[group == name].astype(float), loss[group == name]) for name in dict.fromkeys(group)}


def sft_fit(size, loss, start, jacobian=True, **options):
    """One group by `curve_fit` from SciPy: half of the sum of the squares that is left."""

    def predict(size, constant, weight, alpha):
        return constant + weight * size**-alpha

    def derivatives(size, constant, weight, alpha):
        power = size**-alpha
        return np.stack([np.ones_like(size), power, -weight * np.log(size) * power], -1)

    alpha, part = start
    constant = part * loss.min()
    begin = constant, (loss[0] - constant) * size[0] ** alpha, alpha
    jac = derivatives if jacobian else None
    found, _ = curve_fit(predict, size, loss, begin, bounds=(0, np.inf), jac=jac, max_nfev=10000, **options)
    return ((predict(size, *found) - loss) ** 2).sum() / 2


def with_curve_fit(groups, starts, **options):
    """A loop over all groups and some starts; what is left of each group."""
    return np.array([min(sft_fit(*g, start, **options) for start in SFT_STARTS[:starts]) for g in groups.values()])


@functools.cache
def best_of_curve_fit():
    """What it leaves of each group at the least, with tolerances at rounding."""
    return with_curve_fit(sft_groups(), len(SFT_STARTS), ftol=1e-15, xtol=1e-15, gtol=1e-15)


@pytest.mark.parametrize(
    ("count_of_starts", "peer"),
    [
        (1, "jaxlaws"),
        (1, "curve_fit"),
        (1, "curve_fit_alone"),
        (12, "jaxlaws"),
        (12, "curve_fit"),
        (64, "jaxlaws"),
    ],
)
def test_groups_per_second(clock, count, count_of_starts, peer):
    """All groups at once, and one after another."""
    long_only(count, count_of_starts == 12)
    groups = sft_groups()
    found = []
    if peer != "jaxlaws":
        jacobian = peer == "curve_fit"
        clock(lambda: found.append(with_curve_fit(groups, count_of_starts, jacobian=jacobian)), len(groups))
        return
    clock(lambda: found.append(jl.fit(SFT, runs("sldbench_sft_train.csv"), starts=count_of_starts)), len(groups))
    fit = found[-1]
    for name, (size, loss) in groups.items():
        c = fit.coefs[name]
        left = ((c.L_inf + c.A * size**-c.alpha - loss) ** 2).sum() / 2
        np.testing.assert_allclose(fit.value[name], left, rtol=1e-9)
    worse = np.array([fit.value[name] for name in groups]) / best_of_curve_fit() - 1
    tell(clock, {"worse than SciPy by": worse.max(), "better than SciPy by": -worse.min()})
    assert worse.max() <= 1e-9


# Others.


def test_linear(clock):
    """With its exponents given, `data_constrained` is linear."""
    law, table = jl.laws["data_constrained"], runs("sldbench_data_constrained_train.csv")
    c = law.groups["all_data"]
    fixed = {name: getattr(c, name) for name in ("alpha", "beta", "gamma", "delta")}
    names = ("params", "tokens", "unique_tokens", "loss")
    params, tokens, unique, loss = (table[name].to_numpy().astype(float) for name in names)
    columns = [params**0, params**-c.alpha, tokens**-c.beta, unique**-c.gamma, (tokens / unique) ** -c.delta]
    expected = np.linalg.lstsq(np.stack(columns, -1), loss, rcond=None)[0]
    found = []
    clock(lambda: found.append(jl.fit(law, table, fixed=fixed)), len(loss))
    coefs = found[-1].coefs["all_data"]
    difference = np.abs(np.array([getattr(coefs, name) for name in "dabce"]) / expected - 1)
    tell(clock, {"difference": difference.max()})
    assert difference.max() < 1e-6


@pytest.mark.parametrize("law", ["domain_mixture", "moe", "parallel"])
def test_published(clock, count, law):
    """What is left of the squares on the runs that the published coefficients are from."""
    long_only(count, law != "moe")
    table = runs(f"sldbench_{law}_train.csv")
    law = jl.laws[law]
    measured = np.stack([table[c].to_numpy() for c in law.output_columns], -1)
    predicted = jl.predict_table(law, table)
    theirs = np.stack([predicted["predicted_" + c].to_numpy() for c in law.output_columns], -1)
    found = []
    clock(lambda: found.append(jl.fit(law, table)), len(measured))
    ours = (found[-1].residuals ** 2).sum()
    tell(clock, {"objective": ours / ((measured - theirs) ** 2).sum()})


# Data sets that are made of a law and noise: of each law a group, the number of runs, and the size of the noise, which
# is small enough for the law to be almost a plane where its coefficients may lie.

LEVEL = 0.9
RECOVERED = {
    "chinchilla": ("besiroglu2024", 240, 3e-3),
    "data_constrained": ("all_data", 150, 2e-4),
    "data_constrained_overfit": ("all_data", 150, 2e-4),
    "data_mixing": ("pile_70m", 100, 1e-3),
    "deepseek": ("deepseek", 60, 1e-2),
    "domain_mixture": ("70M", 60, 2e-3),
    "domain_mixture_power": ("70M", 60, 2e-3),
    "easy_question": ("mmlu", 60, 1e-3),
    "fine_grained_moe": ("moe", 150, 1e-4),
    "kaplan": ("table2", 100, 1e-3),
    "lr_bsz": ("all_data", 150, 5e-4),
    "moe": ("all_data", 100, 3e-3),
    "moe_onset": ("all_data", 100, 5e-4),
    "overtraining": ("c4", 100, 2e-3),
    "parallel": ("pile", 60, 5e-4),
    "parallel_square_root": ("pile", 60, 5e-4),
    "parscale": ("pile", 60, 5e-4),
    "precision": ("table2", 200, 2e-4),
    "quantization": ("table2", 100, 1e-2),
    "repeated_data": ("c4", 150, 5e-4),
    "routed": ("s_base", 100, 5e-4),
    "sft": ("('facebook/bart-large', 'wikiword')", 30, 5e-3),
    "sft_saturated": ("('gpt2', 'flan')", 30, 2e-3),
    "sparsity": ("table3", 200, 3e-5),
    "step_law": ("dense", 60, 1e-2),
    "task_error": ("c4", 60, 2e-3),
    "vocab": ("all_data", 150, 5e-4),
    "vocabulary": ("all_data", 150, 1e-4),
}
FIXED = {
    "data_constrained_overfit": ("E",),  # which is on its bound
    "domain_mixture": ("intercept",),  # proportions have the sum 1, so that it cannot be told from coef_linear
}


@pytest.mark.parametrize("law", list(RECOVERED))
def test_recovery(clock, count, law):
    """How often the intervals of the coefficients cover those that the data are made of."""
    long_only(count, law != "sft")
    sets = max(2, count // 10)
    group, rows, noise = RECOVERED[law]
    law = jl.laws[law]
    truth = law.groups[group]
    loss = np.asarray(law(truth, sampling.inputs(law, rows, seed=3))).reshape(rows, -1)
    error = noise * np.random.default_rng(SEED).normal(size=(sets, *loss.shape))
    measured = loss + error * loss.mean() if law.objective == "squared" else loss * np.exp(error)
    table = {name: np.tile(values, sets) for name, values in sampling.columns(law, rows, seed=3).items()}
    table |= dict(zip(law.output_columns, measured.reshape(sets * rows, -1).T, strict=True))
    table["group"] = np.repeat(np.arange(sets), rows).astype(str)
    fixed = {name: getattr(truth, name) for name in FIXED.get(law.name, ())}
    free = [name for name in jl.as_dict(truth) if name not in fixed]
    fit = clock.benchmark.pedantic(lambda: jl.fit(law, table, shared=(), fixed=fixed, starts=16), rounds=1)
    clock.benchmark.extra_info["rows"] = sets

    def numbers(records):
        return np.array([np.concatenate([np.ravel(getattr(c, name)) for name in free]) for c in records])

    low, high = (numbers(side) for side in zip(*fit.interval(LEVEL).values(), strict=True))
    covered = ((low <= numbers([truth])) & (numbers([truth]) <= high)).mean(0)
    times = np.arange(sets + 1)
    chance = binom.pmf(times, sets, LEVEL)[outside(times / sets)].sum()
    figures = {
        "runs": rows,
        "noise": noise,
        "coefficients": covered.size,
        "covered": covered.mean(),
        "least": covered.min(),
        "most": covered.max(),
        "outside": outside(covered).sum(),
        "outside by chance": chance * covered.size,
        "converged": np.mean(list(fit.converged.values())),
    }
    tell(clock, figures)
    assert figures["converged"] > 0.99
    assert abs(figures["covered"] - LEVEL) < 0.1


def outside(share):
    """Whether a share is not near enough to what it should be."""
    return (share < LEVEL - 0.02 - 1e-9) | (share > LEVEL + 0.02 + 1e-9)
