import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
import sampling
from scipy import stats
from scipy.optimize import curve_fit, least_squares

import jaxlaws as jl
from jaxlaws import testing
from jaxlaws.fitting import bootstrap as bootstrapping
from jaxlaws.fitting.form import bent_fields, linear_fields
from jaxlaws.fitting.starts import spread
from jaxlaws.law import variables
from jaxlaws.numerics import plain

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")  # answers far from all runs are answers here

SFT = jl.laws["sft"]


def sft_runs(count=14, noise=0.01, seed=0, low=200, L_inf=1.0, A=5.0, alpha=0.3):
    size = np.geomspace(low, 4e5, count)
    error = 1 + noise * np.random.default_rng(seed).normal(size=count)
    return {"sft_data_size": size, "sft_loss": (L_inf + A * size**-alpha) * error}


def joined(*tables):
    """Tables as the groups g0, g1, ... of one."""
    names = [name for i, table in enumerate(tables) for name in [f"g{i}"] * len(next(iter(table.values())))]
    return {key: np.concatenate([t[key] for t in tables]) for key in tables[0]} | {"group": names}


def flat(record):
    return np.concatenate([np.ravel(getattr(record, v.name)) for v in variables(type(record))])


def huber_log(predicted, measured, delta=1e-3):
    error = np.abs(np.log(predicted / measured))
    return np.where(error > delta, delta * (error - delta / 2), error**2 / 2).sum()


# The real runs.


@pytest.fixture(scope="module")
def chinchilla(data):
    runs = np.genfromtxt(data / "chinchilla_epoch_svg.csv", delimiter=",", names=True)
    runs = np.sort(runs, order="loss")[:-5]
    return {"params": runs["model_size"], "tokens": runs["training_tokens_derived"], "loss": runs["loss"]}


@pytest.fixture(scope="module")
def chinchilla_fit(chinchilla):
    return jl.fit(jl.laws["chinchilla"], chinchilla)


def test_chinchilla(chinchilla, chinchilla_fit):
    fit = chinchilla_fit
    assert fit.objective == "huber_log"
    assert fit.value["all_data"] <= 0.0010182741
    assert fit.converged["all_data"]
    assert fit.share["all_data"] > 0.9
    c = fit.coefs["all_data"]
    published, errors = (1.8172, 482.01, 2085.43, 0.3478, 0.3658), (0.0257, 124.5, 1293, 0.0154, 0.0206)
    assert np.all(np.abs(flat(c) - published) < errors)
    predicted = c.E + c.A * chinchilla["params"] ** -c.alpha + c.B * chinchilla["tokens"] ** -c.beta
    assert fit.value["all_data"] == pytest.approx(huber_log(predicted, chinchilla["loss"]), rel=1e-12)
    np.testing.assert_allclose(fit.residuals, chinchilla["loss"] - predicted, atol=1e-13)


def test_grid_of_starts_that_begin_on_bounds(chinchilla, chinchilla_fit):
    alpha, beta = map(np.ravel, np.meshgrid([0, 0.5, 1, 1.5, 2], [0, 0.5, 1, 1.5, 2]))
    fit = jl.fit(jl.laws["chinchilla"], chinchilla, starts={"alpha": alpha, "beta": beta, "E": np.ones(25)})
    assert fit.value["all_data"] == pytest.approx(chinchilla_fit.value["all_data"], rel=1e-9)
    assert fit.share["all_data"] > 0.7  # of starts at 0, rounding decides whether they leave it


def test_bootstrap_of_chinchilla_has_the_published_standard_errors(chinchilla_fit):
    draws = jl.bootstrap(chinchilla_fit, 1000)
    assert draws.converged["all_data"] == 1
    ratio = flat(draws.stderr["all_data"]) / (0.0257, 124.5, 1293, 0.0154, 0.0206)
    np.testing.assert_allclose(ratio[[0, 1, 3, 4]], 1, atol=0.1)
    assert 0.8 < ratio[2] < 1.25  # B has a long tail: its standard deviation is not told to 10 % by 1000 draws


def test_data_constrained_with_exponents_held_fixed_is_that_of_its_source(data):
    law = jl.laws["data_constrained"]
    known = law.groups["all_data"]
    exponents = {name: getattr(known, name) for name in ("alpha", "beta", "gamma", "delta")}
    fit = jl.fit(law, data / "sldbench_data_constrained_train.csv", fixed=exponents)
    t = jl.read_table(data / "sldbench_data_constrained_train.csv")
    n, d, u, y = (np.asarray(t[name], np.float64) for name in ("params", "tokens", "unique_tokens", "loss"))
    powers = [n**-known.alpha, d**-known.beta, u**-known.gamma, (d / u) ** -known.delta]
    expected = np.linalg.lstsq(np.stack([np.ones_like(n), *powers], 1), y, rcond=None)[0]
    found = [getattr(fit.coefs["all_data"], name) for name in "dabce"]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert fit.coefs["all_data"].alpha == known.alpha


@pytest.mark.parametrize("name", ["parallel", "moe", "domain_mixture", "sft"])
def test_no_worse_than_the_published_coefficients(name, data):
    law = jl.laws[name]
    path = data / f"sldbench_{name}_train.csv"
    fit = jl.fit(law, path)
    predicted = jl.predict_table(law, jl.read_table(path), strict=False)
    pairs = [(f"predicted_{column}", column) for column in law.output_columns]
    theirs = sum(np.sum((np.asarray(predicted[a]) - np.asarray(predicted[b])) ** 2) for a, b in pairs)
    assert np.sum(fit.residuals**2) <= theirs * (1 + 1e-12)
    assert all(fit.converged.values())


def test_sft_is_never_worse_than_curve_fit(data):
    path = data / "sldbench_sft_train.csv"
    fit = jl.fit(SFT, path)
    table = jl.read_table(path)
    group, size, loss = (np.asarray(table[c]) for c in ("group", "sft_data_size", "sft_loss"))
    assert len(fit.coefs) == 42
    for name, value in fit.value.items():
        mine = group == name
        best = np.inf
        for alpha in (0.05, 0.3):
            start = [loss[mine].min() / 2, 5.0, alpha]
            c, _ = curve_fit(
                lambda n, L, A, a: L + A * n**-a,
                size[mine].astype(float),
                loss[mine],
                start,
                bounds=(0, np.inf),
                xtol=1e-15,
                ftol=1e-15,
                gtol=1e-15,
            )
            best = min(best, np.sum((c[0] + c[1] * size[mine] ** -c[2] - loss[mine]) ** 2) / 2)
        assert value <= best * (1 + 1e-9)


# Every law.


@pytest.mark.parametrize("name", jl.laws)
def test_runs_of_a_law_without_noise_give_it_back(name, quick):
    law = jl.laws[name]
    group, coefs = next(iter(testing.groups_of(law).items()))
    columns = sampling.columns(law, 60, seed=1)
    outputs = np.asarray(law(coefs, sampling.inputs(law, 60, seed=1))).reshape(60, -1)
    fit = jl.fit(law, columns | dict(zip(law.output_columns, outputs.T, strict=True)) | {"group": [group] * 60})
    if name in ("distillation", "farseer"):  # many coefficients, which 60 runs hardly tell
        assert fit.scores.r2 > 1 - 1e-7
        return
    assert fit.scores.r2 > 1 - 1e-9
    np.testing.assert_allclose(fit.residuals.reshape(60, -1), 0, atol=1e-5 * outputs.std())
    if "not tell" not in str(fit.flags[group]):
        for v in variables(law.coefs):
            value = np.asarray(getattr(coefs, v.name))
            np.testing.assert_allclose(getattr(fit.coefs[group], v.name), value, rtol=1e-6, atol=1e-7 * np.ptp(value))


@pytest.mark.parametrize("name", jl.laws)
def test_linear_coefficients_are_those_without_second_derivatives(name):
    law = jl.laws[name]
    coefs, inputs = next(iter(testing.groups_of(law).values())), jax.tree.map(lambda x: x[0], sampling.inputs(law, 1))
    values = {v.name: 1.1 * np.asarray(getattr(coefs, v.name), float) for v in variables(law.coefs)}
    owner = [name for name, value in values.items() for _ in range(value.size)]
    ends = np.cumsum([value.size for value in values.values()])[:-1]

    def total(x):
        fields = zip(values.items(), jnp.split(x, ends), strict=True)
        found = law.fn(law.coefs(**{name: part.reshape(value.shape) for (name, value), part in fields}), inputs)
        return jnp.sum(found * np.arange(1.0, 1 + found.size))

    def second(x, a, b):
        return jax.jvp(lambda x: jax.jvp(total, (x,), (a,))[1], (x,), (b,))[1]

    with jax.enable_x64(True), plain():
        x, each = np.concatenate([np.ravel(value) for value in values.values()]), np.eye(len(owner))
        both = jax.vmap(jax.vmap(second, (None, None, 0)), (None, 0, None))
        found = np.asarray(jax.jit(both, compiler_options={"xla_backend_optimization_level": 0})(x, each, each))
    bent = {(owner[i], owner[j]) for i, j in np.argwhere(found)}
    assert bent <= bent_fields(law)
    linear = linear_fields(law)
    assert not any((a, b) in bent for a in linear for b in linear)
    assert all((v.name, v.name) in bent or v.name in linear for v in variables(law.coefs))


# Objectives, weights, shared coefficients and bounds, against oracles.


@pytest.mark.parametrize("objective", ["squared", "relative", "huber_log"])
def test_objective_is_least_and_what_it_is_said_to_be(objective):
    runs = sft_runs(noise=0.02)
    fit = jl.fit(SFT, runs, objective=objective)
    size, loss = runs.values()

    def value(c):
        predicted = c[0] + c[1] * size ** -c[2]
        if objective == "huber_log":
            return huber_log(predicted, loss)
        return np.sum((predicted - loss) ** 2 / (1 if objective == "squared" else loss**2)) / 2

    best = flat(fit.coefs["all_data"])
    assert fit.value["all_data"] == pytest.approx(value(best), rel=1e-12)
    random = np.random.default_rng(0)
    for step in (1e-2, 1e-3, 1e-4):
        for _ in range(100):
            assert value(best * (1 + step * random.normal(size=3))) > fit.value["all_data"] * (1 - 1e-12)


def test_weight_2_is_two_runs_and_weight_0_none():
    runs = sft_runs()
    weights = np.array([0.0, 2.0, *[1.0] * 12])
    fit = jl.fit(SFT, runs, weights=weights)
    twice = {name: np.concatenate([values[1:], values[1:2]]) for name, values in runs.items()}
    other = jl.fit(SFT, twice)
    np.testing.assert_allclose(flat(fit.coefs["all_data"]), flat(other.coefs["all_data"]), rtol=1e-8)
    named = jl.fit(SFT, runs | {"w": weights}, weights="w")
    np.testing.assert_array_equal(flat(fit.coefs["all_data"]), flat(named.coefs["all_data"]))


def test_shared_coefficients_are_those_of_one_joint_problem():
    law = jl.laws["parallel"]
    tables = []
    for seed, group in enumerate(("pile", "stack")):
        columns = sampling.columns(law, 20 + 3 * seed, seed=seed)
        loss = np.asarray(law(group, sampling.inputs(law, 20 + 3 * seed, seed=seed)))
        noise = np.random.default_rng(seed).normal(size=len(loss))
        tables.append(columns | {"loss": loss * (1 + 1e-3 * noise)})
    fit = jl.fit(law, joined(*tables))
    a, b = fit.coefs.values()
    assert (a.alpha, a.beta) == (b.alpha, b.beta)
    assert a.c0 != b.c0

    def errors(x):
        found = []
        for t, c in zip(tables, (x[2:6], x[6:]), strict=True):
            n, p = t["num_params"], t["parallel_size"]
            scale = 1e9 ** x[0]
            u, v = scale * n ** -x[0], p ** -x[1]
            found.append(c[0] + c[1] * u + c[2] * v + c[3] * u * v - t["loss"])
        return np.concatenate(found)

    start = [a.alpha, a.beta]
    for c in (a, b):
        start += [c.c0, c.c1 * 1e9**-c.alpha, c.c2, c.c3 * 1e9**-c.alpha]
    lower = [0.0] * 10
    oracle = least_squares(
        errors, np.array(start) * 1.05, bounds=(lower, np.inf), x_scale="jac", xtol=1e-15, ftol=1e-15
    )
    value = fit.value["g0"]
    assert value == fit.value["g1"]
    assert value <= oracle.cost * (1 + 1e-9)
    separate = jl.fit(law, joined(*tables), shared=())
    assert sum(separate.value.values()) < value
    c, d = separate.coefs.values()
    assert c.alpha != d.alpha
    alone = jl.fit(law, tables[0])
    assert separate.value["g0"] == pytest.approx(alone.value["all_data"], rel=1e-9)


def test_bounds_are_kept_and_flagged():
    runs = sft_runs(noise=0)
    fit = jl.fit(SFT, runs, bounds={"L_inf": (1.2, None), "alpha": (None, 0.25)})
    c = fit.coefs["all_data"]
    assert (c.L_inf, c.alpha) == (1.2, 0.25)
    size, loss = runs.values()
    u = size**-0.25
    assert pytest.approx(np.sum(u * (loss - 1.2)) / np.sum(u * u), rel=1e-9) == c.A
    assert fit.flags["all_data"] == ("on a bound: L_inf, alpha",)
    assert np.isnan(fit.stderr["all_data"].alpha)
    assert np.isfinite(fit.stderr["all_data"].A)


def test_covariance_is_that_of_curve_fit():
    runs = sft_runs(40, 0.01)
    fit = jl.fit(SFT, runs)
    size, loss = runs.values()
    best = flat(fit.coefs["all_data"])
    _, covariance = curve_fit(lambda n, L, A, a: L + A * n**-a, size, loss, best)
    np.testing.assert_allclose(fit.covariance["all_data"], covariance, rtol=1e-4)
    np.testing.assert_allclose(flat(fit.stderr["all_data"]), np.sqrt(np.diag(covariance)), rtol=1e-4)
    assert fit.freedom["all_data"] == 37


def test_intervals_cover():
    sets = 400
    size = np.geomspace(200, 4e5, 25)
    error = 1 + 0.005 * np.random.default_rng(0).normal(size=(sets, 25))
    table = {
        "sft_data_size": np.tile(size, sets),
        "sft_loss": ((1 + 5 * size**-0.3) * error).ravel(),
        "group": np.repeat([f"{i}" for i in range(sets)], 25),
    }
    fit = jl.fit(SFT, table, objective="relative")  # as the errors are
    intervals = fit.interval(0.9)
    for name, truth in {"L_inf": 1.0, "A": 5.0, "alpha": 0.3}.items():
        low, high = np.array([[getattr(end, name) for end in ends] for ends in intervals.values()]).T
        assert 0.86 < np.mean((low <= truth) & (truth <= high)) < 0.94  # 2.7 standard errors of a share of 400
    ends = [jl.predict_interval(fit, group, sft_data_size=1e6) for group in fit.coefs]
    low, _, high = np.array(ends).T
    truth = 1 + 5 * 1e6**-0.3
    assert 0.86 < np.mean((low <= truth) & (truth <= high)) < 0.94


# Groups that cannot be fitted, and input that is refused.


def test_bad_groups_are_flagged_and_the_others_fitted():
    good = sft_runs()
    one = {name: values[:1] for name, values in good.items()}
    two = {name: values[:2] for name, values in good.items()}
    constant = good | {"sft_data_size": np.full(14, 1000.0)}
    repeated = {name: np.concatenate([values, values[:2]]) for name, values in good.items()}
    fit = jl.fit(SFT, joined(good, one, two, constant, repeated))
    alone = jl.fit(SFT, good)
    assert fit.flags["g0"] == ()
    np.testing.assert_allclose(flat(fit.coefs["g0"]), flat(alone.coefs["all_data"]), rtol=1e-7)
    assert "1 runs for 3 coefficients" in " ".join(fit.flags["g1"])
    assert "2 runs for 3 coefficients" in " ".join(fit.flags["g2"])
    assert "the same in all runs: sft_data_size" in fit.flags["g3"]
    assert "the runs do not tell" in " ".join(fit.flags["g3"])
    assert np.isinf(fit.stderr["g3"].A)
    assert fit.rank["g3"] < 3
    assert "2 runs repeat another one" in fit.flags["g4"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"sft_loss": np.full(14, np.nan)}, {}, "column 'sft_loss' is not a number"),
        ({"sft_loss": np.full(14, np.inf)}, {}, "column 'sft_loss' is infinite: rows 0, 1"),
        (
            {"sft_loss": -np.ones(14)},
            {"objective": "huber_log"},
            "'sft_loss' must be positive for objective 'huber_log'",
        ),
        ({}, {"objective": "cubed"}, "objective must be one of 'squared'"),
        ({}, {"fixed": {"L": 1}}, "sft has no coefficient 'L'; it has L_inf, A, alpha"),
        ({}, {"fixed": {"L_inf": [1, 2]}}, r"fixed L_inf has shape \(2,\)"),
        ({}, {"fixed": dict.fromkeys(("L_inf", "A", "alpha"), 1)}, "all coefficients are fixed"),
        ({}, {"fixed": {"alpha": np.nan}}, "fixed alpha must be finite"),
        ({}, {"starts": {"alpha": [0.3, np.inf]}}, "starts of alpha must be finite"),
        ({}, {"bounds": {"A": (2, 1)}}, "bounds of A leave nothing between 2 and 1"),
        ({}, {"weights": np.ones(3)}, "weights must be one number per row, 14 of them"),
        ({}, {"weights": -np.ones(14)}, "weights must be at least 0"),
        ({}, {"starts": 0}, "at least one start"),
        ({}, {"starts": {"A": [1.0]}}, "starts have no alpha"),
        ({}, {"group": "grup"}, "no column 'grup'"),
    ],
)
def test_bad_input_is_one_clear_error(change, options, message):
    with pytest.raises(ValueError, match=message):
        jl.fit(SFT, sft_runs() | change, **options)


def test_missing_columns_and_empty_tables():
    with pytest.raises(jl.DataError, match="no column 'sft_loss'"):
        jl.fit(SFT, {"sft_data_size": [1.0, 2.0]})
    with pytest.raises(jl.DataError, match="no rows"):
        jl.fit(SFT, {"sft_data_size": np.zeros(0), "sft_loss": np.zeros(0)})
    with pytest.raises(TypeError, match="a law such as"):
        jl.fit("sft", sft_runs())


# How it is computed.


def test_fits_are_in_float64_whatever_jax_is_set_to():
    fit = jl.fit(SFT, sft_runs(noise=0))
    assert not jax.config.jax_enable_x64
    np.testing.assert_allclose(flat(fit.coefs["all_data"]), [1, 5, 0.3], rtol=1e-9)


def test_the_same_shape_is_compiled_once(compilations):
    jl.fit(SFT, sft_runs(seed=1))
    with compilations() as found:
        jl.fit(SFT, sft_runs(seed=2))
    assert found == []


def test_bounds_are_data_of_what_is_compiled(compilations):
    runs = sft_runs(noise=0)
    first = jl.fit(SFT, runs, bounds={"alpha": (None, 0.25)})
    with compilations() as found:
        other = jl.fit(SFT, runs, bounds={"alpha": (0.1, 0.2), "L_inf": (None, 3)})
    assert found == []
    assert [fit.coefs["all_data"].alpha for fit in (first, other)] == [0.25, 0.2]


def test_starts_fill_their_box_evenly():
    points = spread([(0, 1), (1, 1e6)], 200, 0)
    assert np.all((points >= [[0], [1]]) & (points <= [[1], [1e6]]))
    counts, _, _ = np.histogram2d(points[0], np.log(points[1]) / np.log(1e6), bins=5, range=[[0, 1], [0, 1]])
    assert counts.min() >= 4  # 8 on average
    assert not np.array_equal(points, spread([(0, 1), (1, 1e6)], 200, 1))


def test_other_sizes_than_the_published_ones():
    law = jl.laws["data_mixing"]
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(3), 40)
    t = random.normal(size=(3, 3)) - 2 * np.eye(3)
    loss = np.exp(0.3) + np.exp(p @ t.T)
    table = {f"proportion_domain_{i + 1}": p[:, i] for i in range(3)}
    table |= {f"loss_domain_{i + 1}": loss[:, i] for i in range(3)}
    fit = jl.fit(law, table)
    assert fit.coefs["all_data"].t.shape == (3, 3)
    np.testing.assert_allclose(fit.coefs["all_data"].t, t, rtol=1e-5)
    np.testing.assert_allclose(fit.coefs["all_data"].c, 0.3, rtol=1e-6)


# Bootstrap and intervals.


def test_a_draw_is_the_fit_to_the_runs_drawn():
    fit = jl.fit(SFT, joined(sft_runs(14), sft_runs(20, seed=1)))
    draws = jl.bootstrap(fit, 5, seed=3)
    random = np.random.default_rng(3)
    counts = [random.multinomial(n, np.full(n, 1 / n), 5) for n in (14, 20)]
    for i in range(5):
        again = jl.fit(SFT, joined(sft_runs(14), sft_runs(20, seed=1)), weights=np.concatenate([c[i] for c in counts]))
        for name, coefs in again.coefs.items():
            drawn = [getattr(draws.coefs[name], v.name)[i] for v in variables(SFT.coefs)]
            np.testing.assert_allclose(drawn, flat(coefs), rtol=1e-6)


def test_clusters_are_drawn_whole():
    runs = joined(sft_runs(14), sft_runs(14, seed=1))
    runs.pop("group")
    fit = jl.fit(SFT, runs)
    pairs = jl.bootstrap(fit, 300, clusters="sft_data_size")
    labels = jl.bootstrap(fit, 300, clusters=np.tile(np.arange(14), 2))
    np.testing.assert_array_equal(pairs.coefs["all_data"].A, labels.coefs["all_data"].A)
    single = jl.bootstrap(fit, 300)
    assert not np.array_equal(pairs.coefs["all_data"].A, single.coefs["all_data"].A)
    with pytest.raises(ValueError, match="has no input 'seed'"):
        jl.bootstrap(fit, 10, clusters="seed")
    with pytest.raises(ValueError, match="at least 2 draws"):
        jl.bootstrap(fit, 1)


def test_intervals_of_predictions():
    fit = jl.fit(SFT, sft_runs(40, 0.01))
    c, size = fit.coefs["all_data"], np.array([[1e3, 1e6], [1e7, 1e8]])
    low, middle, high = jl.predict_interval(fit, "all_data", sft_data_size=size)
    np.testing.assert_allclose(middle, c.L_inf + c.A * size**-c.alpha, rtol=1e-12)
    slope = np.stack([np.ones_like(size), size**-c.alpha, -c.A * np.log(size) * size**-c.alpha], -1)
    error = np.sqrt(np.einsum("...i,ij,...j->...", slope, fit.covariance["all_data"], slope))
    np.testing.assert_allclose(high - middle, 1.6871 * error, rtol=1e-4)  # Student's distribution, 37 degrees
    np.testing.assert_allclose(middle - low, high - middle, rtol=1e-9)
    wide = jl.predict_interval(fit, "all_data", sft_data_size=size, run=True)
    assert np.all(wide.high > high)
    draws = jl.bootstrap(fit, 400)
    drawn = jl.predict_interval(draws, "all_data", sft_data_size=size)
    coefs = draws.coefs["all_data"]
    values = coefs.L_inf + coefs.A * size[..., None] ** -coefs.alpha
    np.testing.assert_allclose(drawn.low, np.quantile(values, 0.05, -1), rtol=1e-6)
    with pytest.raises(jl.UnknownNameError, match="unknown group of the fit 'b'"):
        jl.predict_interval(fit, "b", sft_data_size=1e6)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        jl.predict_interval(fit, "all_data", sft_data_size=1e6, level=90)


def test_draws_go_through_searches():
    law = jl.laws["chinchilla"]
    random = np.random.default_rng(0)
    n, d = 10.0 ** random.uniform([[8], [9]], [[10], [11]], (2, 60))
    loss = np.asarray(law("besiroglu2024", params=n, tokens=d)) * (1 + 0.002 * random.normal(size=60))
    fit = jl.fit(law, {"params": n, "tokens": d, "loss": loss}, objective="relative")
    draws = jl.bootstrap(fit, 20)
    plan = jl.allocate(law, draws.coefs["all_data"], budget=1e21)
    assert plan.loss.shape == (20,)
    c = draws.coefs["all_data"]
    scale = (c.alpha * c.A / (c.beta * c.B)) ** (1 / (c.alpha + c.beta))
    best = scale * (1e21 / 6) ** (c.beta / (c.alpha + c.beta))
    np.testing.assert_allclose(plan.inputs.params, best, rtol=1e-5)


# What is said of a fit must hold.


@jl.record
class X:
    x: jl.law.Scalar = jl.var("a number", floor=-1e9)


@jl.record
class Y:
    y: jl.law.Scalar = jl.var("a number")


def law_of(fn, **coefs):
    """A law of one input x, with coefficients of these start ranges."""
    fields = {name: jl.var("a coefficient", start=start) for name, start in coefs.items()}
    members = fields | {"__annotations__": dict.fromkeys(coefs, jl.law.Scalar), "__module__": __name__}
    cls = jl.record(type("C", (), members))
    return jl.Law(title="t", fn=fn, inputs=X, coefs=cls, outputs=Y, groups={}, formula="", source=SFT.source)


def test_what_a_loop_hands_on_is_not_linear():
    def fn(c, x):  # a**2 * x after three turns
        return jax.lax.scan(lambda s, _: ((s[1], s[2], c.a * c.a * x.x), None), (x.x, x.x, x.x), None, length=3)[0][0]

    law = law_of(lambda c, x: fn(c, x) + c.b, a=(0.1, 3), b=(0, 1))
    assert linear_fields(law) == ("b",)
    assert bent_fields(law) == {("a", "a")}
    x = np.linspace(0, 1, 8)
    fit = jl.fit(law, {"x": x, "y": 4 * x + 1})
    np.testing.assert_allclose(flat(fit.coefs["all_data"]), [2, 1], rtol=1e-8)


def test_predictions_that_runs_do_not_tell_have_no_ends():
    law, params = jl.laws["chinchilla"], np.geomspace(1e8, 1e10, 30)
    loss = np.asarray(law("besiroglu2024", params=params, tokens=1e11))
    loss = loss * (1 + 0.003 * np.random.default_rng(0).normal(size=30))
    fit = jl.fit(law, {"params": params, "tokens": np.full(30, 1e11), "loss": loss}, objective="squared")
    low, middle, high = jl.predict_interval(fit, "all_data", params=1e9, tokens=np.array([1e11, 1e13]))
    assert 0 < high[0] - low[0] < 0.1
    assert (low[1], high[1]) == (-np.inf, np.inf)
    assert np.isfinite(middle).all()


def test_all_starts_reach_an_exact_fit():
    for objective in ("squared", "huber_log"):
        assert jl.fit(SFT, sft_runs(noise=0), objective=objective).share["all_data"] > 0.95


def test_groups_without_runs_take_nothing_from_others():
    law = jl.laws["data_constrained"]
    columns = sampling.columns(law, 40, seed=0)
    loss = np.asarray(law("all_data", sampling.inputs(law, 40, seed=0)))
    table = columns | {"loss": loss * (1 + 1e-3 * np.random.default_rng(0).normal(size=40))}
    fixed = {name: getattr(law.groups["all_data"], name) for name in ("beta", "gamma", "delta")}
    alone = jl.fit(law, table, fixed=fixed)
    fit = jl.fit(law, joined(table, table), weights=np.repeat([1.0, 0.0], 40), fixed=fixed)
    assert fit.flags["g1"] == ("there are no runs of it",)
    assert (fit.rank["g0"], fit.rank["g1"]) == (6, 1)
    assert fit.freedom["g0"] == alone.freedom["all_data"] == 34
    np.testing.assert_allclose(flat(fit.stderr["g0"]), flat(alone.stderr["all_data"]), rtol=1e-4)


def test_losses_below_zero_are_flagged():
    runs = sft_runs()
    runs["sft_loss"][3] = -1
    assert "sft_loss is not positive in 1 of 14 runs" in jl.fit(SFT, runs).flags["all_data"]


def test_draws_in_pieces_are_those_of_one(monkeypatch):
    fit = jl.fit(SFT, joined(sft_runs(14), sft_runs(20, seed=1)))
    whole = jl.bootstrap(fit, 24)
    sizes = []
    solve = bootstrapping.solve_all
    monkeypatch.setattr(bootstrapping, "WEIGHTS", 10 * fit.runs.places.size)
    monkeypatch.setattr(bootstrapping, "solve_all", lambda *a, **k: sizes.append(a[3].shape[2]) or solve(*a, **k))
    pieces = jl.bootstrap(fit, 24)
    assert sizes == [10, 10, 4]
    for name in fit.coefs:
        np.testing.assert_allclose(pieces.coefs[name].A, whole.coefs[name].A, rtol=1e-9)
        assert pieces.converged[name] == whole.converged[name]


def test_draws_belong_together_in_any_order_of_rows_and_for_any_name(tmp_path):
    groups = {"7": SFT.coefs(L_inf=np.arange(3.0), A=np.ones(3), alpha=np.ones(3))}
    groups["nul\0"] = SFT.coefs(L_inf=10 + np.arange(3.0), A=np.ones(3), alpha=np.ones(3))
    best = {name: jax.tree.map(lambda x: float(x[0]), c) for name, c in groups.items()}
    draws = jl.Draws(law=SFT, coefs=groups, best=best, converged=dict.fromkeys(groups, 1.0))
    draws.save(tmp_path / "draws.parquet")
    table = pq.read_table(tmp_path / "draws.parquet")
    pq.write_table(table.take([2, 3, 0, 5, 1, 4]), tmp_path / "mixed.parquet")
    for name in ("draws", "mixed"):
        found = jl.read_draws(tmp_path / f"{name}.parquet")
        assert list(found.coefs) == list(groups)
        for group, coefs in groups.items():
            np.testing.assert_array_equal(found.coefs[group].L_inf, coefs.L_inf)
    pq.write_table(table.take([0, 1, 3, 5]), tmp_path / "other.parquet")
    with pytest.raises(jl.DataError, match="the groups have different draws"):
        jl.read_draws(tmp_path / "other.parquet")


def slopes_of(c, size):
    """Derivatives of the law by L_inf, A and alpha."""
    power = size**-c.alpha
    return np.stack([np.ones_like(size), power, -c.A * np.log(size) * power], -1)


def test_errors_of_shared_coefficients_and_weighted_runs_are_those_of_the_joint_problem():
    weights = np.random.default_rng(2).uniform(0.2, 3, 34)
    runs = joined(sft_runs(14), sft_runs(20, seed=1, A=3.0))
    for objective in ("squared", "relative"):
        fit = jl.fit(SFT, runs, weights=weights, shared=["alpha"], objective=objective)
        size, loss = runs["sft_data_size"], runs["sft_loss"]
        matrix, error = np.zeros((34, 5)), np.zeros(34)
        for i, (c, mine) in enumerate(zip(fit.coefs.values(), (slice(0, 14), slice(14, 34)), strict=True)):
            matrix[mine, 1 + 2 * i : 3 + 2 * i] = slopes_of(c, size[mine])[:, :2]
            matrix[mine, 0] = slopes_of(c, size[mine])[:, 2]
            error[mine] = c.L_inf + c.A * size[mine] ** -c.alpha - loss[mine]
        scale = np.ones(34) if objective == "squared" else loss
        matrix, error = matrix * np.sqrt(weights)[:, None] / scale[:, None], error * np.sqrt(weights) / scale
        covariance = np.linalg.inv(matrix.T @ matrix) * (error @ error) / 29
        assert fit.freedom["g1"] == 29
        for i, name in enumerate(fit.coefs):
            place = np.array([0, 1 + 2 * i, 2 + 2 * i])
            np.testing.assert_allclose(fit.covariance[name], covariance[np.ix_(place, place)], rtol=1e-6)
            errors = [getattr(fit.stderr[name], field) for field in ("alpha", "L_inf", "A")]
            np.testing.assert_allclose(errors, np.sqrt(np.diag(covariance))[place], rtol=1e-6)


def test_intervals_of_a_run_add_its_own_deviation():
    runs, new = sft_runs(40, 0.01), np.array([1e3, 1e6, 1e8])
    for objective in ("squared", "relative"):
        fit = jl.fit(SFT, runs, objective=objective)
        c, (size, loss) = fit.coefs["all_data"], runs.values()
        deviation = loss - (c.L_inf + c.A * size**-c.alpha)
        middle = c.L_inf + c.A * new**-c.alpha
        if objective == "relative":
            deviation = deviation / (loss - deviation) * middle[:, None]
        own = np.sum(deviation**2, -1) / 37
        law = np.einsum("ni,ij,nj->n", slopes_of(c, new), fit.covariance["all_data"], slopes_of(c, new))
        low, _, high = jl.predict_interval(fit, "all_data", sft_data_size=new, run=True, level=0.95)
        half = stats.t.ppf(0.975, 37) * np.sqrt(law + own)
        np.testing.assert_allclose([middle - low, high - middle], [half, half], rtol=1e-6)
        # Draws, with the deviations of the runs themselves.
        low, _, high = jl.predict_interval(jl.bootstrap(fit, 2000), "all_data", sft_data_size=new, run=True, level=0.9)
        np.testing.assert_allclose(high - low, 2 * half * 1.645 / stats.t.ppf(0.975, 37), rtol=0.2)


def test_errors_of_robust_fits_are_those_of_fits_to_new_runs():
    sets, size = 300, np.geomspace(200, 4e5, 60)
    noise = 0.003 * np.random.default_rng(0).standard_t(3, (sets, 60))
    groups = np.repeat([str(i) for i in range(sets)], 60)
    loss = ((1 + 5 * size**-0.3) * np.exp(noise)).ravel()
    table = {"sft_data_size": np.tile(size, sets), "sft_loss": loss, "group": groups}
    fit = jl.fit(SFT, table, objective="huber_log", starts={"alpha": [0.3]})
    for name in ("L_inf", "A", "alpha"):
        found, said = (np.array([getattr(c, name) for c in each.values()]) for each in (fit.coefs, fit.stderr))
        assert 0.85 < np.median(said) / found.std() < 1.15


def test_outputs_that_have_converged_stay_so_while_others_go_on():
    law, groups, rows = jl.laws["data_mixing"], 100, 100
    loss = np.asarray(law("pile_70m", sampling.inputs(law, rows, seed=3)))
    loss = loss + 1e-3 * loss.mean() * np.random.default_rng(0).normal(size=(groups, *loss.shape))
    table = {name: np.tile(values, groups) for name, values in sampling.columns(law, rows, seed=3).items()}
    table |= dict(zip(law.output_columns, loss.reshape(groups * rows, -1).T, strict=True))
    fit = jl.fit(law, table | {"group": np.repeat(np.arange(groups), rows).astype(str)}, starts=16)
    assert all(fit.converged.values())


def test_outputs_have_intervals_of_their_own():
    law = jl.laws["domain_mixture"]
    group = next(iter(law.groups))
    columns, inputs = sampling.columns(law, 60, seed=0), sampling.inputs(law, 60, seed=0)
    loss = np.asarray(law(group, inputs))
    loss = loss * (1 + np.array([0.001, 0.002, 0.003, 0.004, 0.005]) * np.random.default_rng(0).normal(size=loss.shape))
    fit = jl.fit(law, columns | dict(zip(law.output_columns, loss.T, strict=True)))
    assert fit.form.parts == 5
    half = jl.predict_interval(fit, "all_data", inputs, level=0.9)
    # The variances of the predictions at the runs sum to that of the errors times the coefficients that are told.
    free = fit.freedom["all_data"]
    variance = ((half.high - half.low) / 2 / stats.t.ppf(0.95, free)) ** 2
    error = np.sum(fit.residuals**2, 0) / free
    np.testing.assert_allclose(variance.sum(0), error * 10, rtol=1e-4)  # 11 coefficients, of shares that sum to 1


@jl.record
class Outputs:
    y: jl.law.Vector = jl.var("numbers", shape="k", columns="y{}")


@jl.record
class Coefs:
    a: jl.law.Vector = jl.var("coefficients", shape="k")


def test_outputs_that_share_saturated_coefficients_are_not_separate():
    def fn(c, x):  # 0 at random coefficients, with its derivatives
        return jnp.exp(-jnp.square(c.a) * x.x) + 0.5 * jnp.exp(-jnp.square(jnp.roll(c.a, 1)) * x.x)

    law = jl.Law(title="t", fn=fn, inputs=X, coefs=Coefs, outputs=Outputs, groups={}, formula="", source=SFT.source)
    x, a = np.geomspace(1e5, 1e10, 20), np.array([1e-4, 3e-4, 6e-5])
    y = np.exp(-(a**2) * x[:, None]) + 0.5 * np.exp(-(np.roll(a, 1) ** 2) * x[:, None])
    fit = jl.fit(law, {"x": x} | {f"y{i + 1}": y[:, i] for i in range(3)}, starts={"a": [[2e-4, 2e-4, 1e-4]]})
    assert fit.form.parts == 1
    np.testing.assert_allclose(fit.coefs["all_data"].a, a, rtol=1e-6)
