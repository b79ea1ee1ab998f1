"""Hold-outs: which runs they name, and the scores of laws on them, against SciPy's fits to the same runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit, least_squares

import jaxlaws as jl
from jaxlaws.fitting.scales import chosen, levels_of
from jaxlaws.tables import DataError, as_frame

SFT, PARALLEL = jl.laws["sft"], jl.laws["parallel"]
SIZE = 200.0 * 2 ** np.arange(12)


def sft_runs():
    """Runs of two models at twelve sizes, one of which is a little larger for the second model; another column."""
    random = np.random.default_rng(1)
    size = np.concatenate([SIZE, SIZE * np.where(np.arange(12) == 10, 1.02, 1)])
    loss = np.concatenate([1.5 + 4 * SIZE**-0.25, 0.8 + 9 * SIZE**-0.4]) * (1 + 0.004 * random.normal(size=24))
    order = random.permutation(24)
    table = {"sft_data_size": size, "sft_loss": loss, "group": np.repeat(["a", "b"], 12)}
    return {name: values[order] for name, values in table.items()} | {"model size": np.arange(24) - 3}


RUNS = sft_runs()
SMALL = {"n_params": [1e9, 1e9, 2e9, 4e9, 4e9], "parallel_size": [1, 2, 1, 1, 4], "loss": [2.0, 1.9, 1.8, 1.7, 1.6]}
SMALL |= {"model size": [-3, 0, 3, 6, 9], "dots.and-more": [1, 2, 3, 4, 5], "text": list("abcde"), "a and b": range(5)}
SMALL["some"] = [1.0, None, 3.0, 4.0, 5.0]


def power_law(size, floor, weight, exponent):
    return floor + weight * size**-exponent


def fitted(mask):
    """SciPy's fit to the runs of one group."""
    start, bounds = (1, 5, 0.3), ((0, 0, 0), np.inf)
    size, loss = RUNS["sft_data_size"][mask], RUNS["sft_loss"][mask]
    return curve_fit(power_law, size, loss, start, bounds=bounds, xtol=1e-15, ftol=1e-15, gtol=1e-15)[0]


def r2(measured, predicted):
    return 1 - np.sum((measured - predicted) ** 2) / np.sum((measured - measured.mean()) ** 2)


# Which runs.


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("num_params>2e9", [3, 4]),  # by another name of the input than the table's
        ("n_params > 2e9", [3, 4]),
        ("params >= 2e9", [2, 3, 4]),
        ("2e9 <= n_params", [2, 3, 4]),
        ("n_params<2000000000", [0, 1]),
        ("n_params<=2e9 and parallel_size==1", [0, 2]),
        ("parallel_size==1 & n_params<4e9&loss>1.9", [0]),
        ("'model size'<0", [0]),
        ("model size < 0", [0]),
        ("model size > -1 AND model size < 5", [1, 2]),
        ("`a and b`>=3", [3, 4]),
        ("dots.and-more>4", [4]),
        ("20% of loss", [0]),
        ("21% of loss", [0, 1]),
        ("20 % of n_params", [3, 4]),
        ("40% of num_params", [3, 4]),
        ("40.1% of num_params", [2, 3, 4]),
        ("20% of model size", [4]),
        ("50% of 'model size' and parallel_size<4", [2, 3]),
        ([False, True, False, False, True], [1, 4]),
        (pd.Series([True, False, False, False, False]), [0]),
    ],
)
def test_a_hold_out_names_runs(condition, rows):
    mask = chosen(condition, as_frame(pd.DataFrame(SMALL)), [PARALLEL])
    np.testing.assert_array_equal(np.flatnonzero(mask), rows)


FORM = "is not a condition such as 'num_params>2e9'"


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("num_parms>2e9", "no column 'num_parms'; did you mean 'n_params'?"),
        ("tokens>2e9", "no column 'tokens'; the table has 'n_params'"),
        ("text>2", "column 'text' must hold numbers"),
        ("some>2", "column 'some' has no value: row 7"),
        ("n_params>1e10", "holds out none of 5 runs; n_params is 1e+09 to 4e+09"),
        ("n_params>1e8", "holds out all of 5 runs, and leaves none to fit"),
        ("99% of n_params", "holds out all of 5 runs"),
        ("0% of n_params", "must be more than 0% and less than 100%"),
        ("100% of n_params", "must be more than 0% and less than 100%"),
        ([False] * 5, "the mask of the hold-out holds out none"),
        ([True] * 4, "an array of bool of shape (4,)"),
        ([0, 1, 0, 0, 0], "an array of int64 of shape (5,)"),
        ("", FORM),
        ("n_params", FORM),
        ("n_params>", FORM),
        (">2", FORM),
        ("1>2", FORM),
        ("n_params>loss", FORM),
        ("n_params=2", FORM),
        ("n_params!=2", FORM),
        ("n_params>nan", FORM),
        ("1e9<n_params<2e9", FORM),
        ("n_params>1e9 and", FORM),
        ("n_params>1e9 and and loss>1", FORM),
        ("% of n_params", FORM),
        ("some% of n_params", FORM),
        ("20% n_params", FORM),
        ("__import__('os')", FORM),
        ("'n_params>2", FORM),
    ],
)
def test_what_is_wrong_with_a_hold_out(condition, message):
    with pytest.raises(DataError) as error:
        chosen(condition, as_frame(SMALL), [PARALLEL], first_row=6)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@given(st.lists(st.floats(1e-3, 1e3) | st.integers(1, 3), min_size=1, max_size=30), st.integers(1, 99))
def test_levels_and_shares(values, percent):
    values = np.array(values, float)
    level, least = levels_of(values)
    assert (np.diff(least) > 0).all()
    for i, low in enumerate(least):  # no more than 5 % wide, and as many values in each as there can be
        own = values[level == i]
        assert own.min() == low
        assert own.max() <= 1.05 * low
        assert not ((values > 1.05 * low) & (level == i)).any()
    assert (least[1:] > 1.05 * least[:-1]).all()
    np.testing.assert_array_equal(levels_of(values, 0)[1], np.unique(values))
    signed = np.append(values, -1.0)
    np.testing.assert_array_equal(levels_of(signed)[1], np.unique(signed))
    many = [100 * (level >= i).sum() for i in range(len(least))]
    few = sum(count < percent * len(values) for count in many) + 1
    if few < len(least):
        mask = chosen(f"{percent}% of x", as_frame({"x": values}), [])
        np.testing.assert_array_equal(mask, level >= len(least) - few)


# What the scores are.


def test_runs_of_weight_0_do_not_count():
    # One group has no run at all, which predicts 0, of which huber_log has no logarithm.
    used = (RUNS["group"] == "a") & (RUNS["sft_data_size"] < 1e5)
    fit = jl.fit(SFT, RUNS, weights=used.astype(float), objective="huber_log")
    size, loss = RUNS["sft_data_size"], RUNS["sft_loss"]

    def error(x):
        return np.log(power_law(size[used], *x) / loss[used])

    best = least_squares(error, (1.5, 4, 0.25), loss="huber", f_scale=1e-3, bounds=((0, 0, 0), np.inf), xtol=1e-14)
    assert fit.value["a"] <= best.cost * (1 + 1e-9)
    np.testing.assert_allclose(fit.value["a"], best.cost, rtol=1e-6)
    np.testing.assert_allclose(list(jl.as_dict(fit.coefs["a"]).values()), best.x, rtol=1e-3)
    assert np.isfinite(list(jl.as_dict(fit.stderr["a"]).values())).all()
    assert fit.scores.rows == used.sum() == 9
    np.testing.assert_allclose(fit.scores.r2, r2(loss[used], loss[used] - fit.residuals[used]))
    assert fit.flags == {"a": (), "b": ("there are no runs of it",)}
    with pytest.raises(DataError, match="weights must not be 0 everywhere"):
        jl.fit(SFT, RUNS, weights=np.zeros(24))


@pytest.mark.parametrize("holdout", ["sft_data_size>1e5", "15% of sft_data_size", "sft_data_size>=1e5 and sft_loss>0"])
def test_held_out_scores_are_those_of_a_fit_to_the_others(holdout):
    found = jl.hold_out(SFT, RUNS, holdout)
    size, loss, group = RUNS["sft_data_size"], RUNS["sft_loss"], RUNS["group"]
    held = size > (np.sort(SIZE)[-3] if "%" in holdout else 1e5)  # sizes that differ by 2 % stay together
    np.testing.assert_array_equal(found.held_out, held)
    predicted = np.zeros(24)
    for name in "ab":
        coefs = fitted(~held & (group == name))
        np.testing.assert_allclose(list(jl.as_dict(found.fit.coefs[name]).values()), coefs, rtol=1e-5)
        predicted[group == name] = power_law(size[group == name], *coefs)
        mine = held & (group == name)
        np.testing.assert_allclose(found.group_scores[name].r2, r2(loss[mine], predicted[mine]), rtol=1e-5)
        assert found.group_scores[name].rows == mine.sum()
        assert found.fitted[name] == (~held & (group == name)).sum()
    np.testing.assert_allclose(found.residuals, (loss - predicted)[held], atol=1e-6)
    np.testing.assert_allclose(found.scores.r2, r2(loss[held], predicted[held]), rtol=1e-6)
    assert found.scores.rows == held.sum()
    np.testing.assert_allclose(found.fit.scores.r2, r2(loss[~held], predicted[~held]), rtol=1e-6)
    assert jl.evaluate(SFT, found.fit.coefs, pd.DataFrame(RUNS)[held]).r2 == pytest.approx(found.scores.r2, rel=1e-12)


def test_hold_outs_of_groups_and_weights():
    with pytest.raises(DataError, match=r"hold-out 'last>0' holds out all runs of group 'b', and leaves none to fit"):
        jl.hold_out(SFT, RUNS | {"last": (RUNS["group"] == "b") * 1}, "last>0")
    with pytest.raises(DataError, match="holds out only runs of weight 0"):
        jl.hold_out(SFT, RUNS, "sft_data_size>1e5", weights=(RUNS["sft_data_size"] < 1e5) * 1)
    with pytest.raises(DataError, match="no column 'model'; did you mean 'model size'"):
        jl.hold_out(SFT, RUNS, "sft_data_size>1e5", "model")
    with pytest.raises(TypeError, match="a law such as"):
        jl.hold_out("sft", RUNS, "sft_data_size>1e5")
    with pytest.raises(TypeError, match="strats"):
        jl.hold_out(SFT, RUNS, "sft_data_size>1e5", strats=3)
    weights = np.where(RUNS["sft_data_size"] == SIZE[-1], 0, 1)  # a run of weight 0 is not scored, either
    found = jl.hold_out(SFT, RUNS, "sft_data_size>1e5", weights=weights)
    assert found.scores.rows == 4
    np.testing.assert_array_equal(found.held_out, (RUNS["sft_data_size"] > 1e5) & (weights > 0))


def test_scale_by_scale():
    # Group b has no runs at the three smallest sizes.
    weights = np.where((RUNS["group"] == "b") & (RUNS["sft_data_size"] < 1000), 0.0, 1.0)
    found = jl.leave_one_scale_out(SFT, RUNS, "sft_data_size", weights=weights)
    size, loss, group = RUNS["sft_data_size"], RUNS["sft_loss"], RUNS["group"]
    # Three coefficients need four runs, three of which are at three smaller sizes.
    assert [level.value for level in found.levels] == SIZE[4:].tolist()
    assert found.skipped == {
        200.0: "no runs at smaller levels",
        400.0: "1 run at 1 smaller level",
        800.0: "2 runs at 2 smaller levels",
        1600.0: "too few runs below",
    }
    rows, residuals = [], []
    for i, level in enumerate(found.levels, 4):
        here = np.abs(size / SIZE[i] - 1) < 0.03
        train = (size < SIZE[i] * 0.99) & (weights > 0)
        if i < 7:
            assert level.left_out == {"b": f"{i - 3} run{'s' * (i > 4)} at {i - 3} smaller level{'s' * (i > 4)}"}
            here &= group == "a"
        else:
            assert level.left_out == {}
        np.testing.assert_array_equal(level.rows, np.flatnonzero(here))
        assert (level.fitted, level.scores.rows) == (train.sum(), here.sum())
        for row, residual in zip(level.rows, level.residuals, strict=True):
            coefs = fitted(train & (group == group[row]))
            np.testing.assert_allclose(residual, loss[row] - power_law(size[row], *coefs), atol=1e-5)
        rows += level.rows.tolist()
        residuals += level.residuals.tolist()
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.residuals, residuals)
    np.testing.assert_allclose(found.scores.r2, r2(loss[rows], loss[rows] - residuals))
    own = group[rows] == "b"
    measured = loss[rows][own]
    np.testing.assert_allclose(found.group_scores["b"].r2, r2(measured, measured - np.array(residuals)[own]))
    assert found.scores.rows == 8 + 5


def test_a_program_serves_all_scales(compilations):
    jl.hold_out(SFT, RUNS, "sft_data_size>1e5")
    with compilations() as found:
        jl.leave_one_scale_out(SFT, RUNS, "sft_data_size", smallest=8)
    assert found == []


def test_scales_that_leave_nothing_to_predict():
    with pytest.raises(
        DataError,
        match="no level of 'sft_data_size' can be predicted from smaller ones: there must be 20 of these with more "
        "than 3 runs in a group, and the table has 12 levels and 24 runs",
    ):
        jl.leave_one_scale_out(SFT, RUNS, "sft_data_size", smallest=20)
    with pytest.raises(DataError, match="no column 'size'; the table has"):
        jl.leave_one_scale_out(SFT, RUNS, "size")
    with pytest.raises(DataError, match="column 'group' must hold numbers"):
        jl.leave_one_scale_out(SFT, RUNS, "group")
    for option in ({"smallest": 0}, {"within": -0.1}, {"within": np.nan}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} must be at least"):
            jl.leave_one_scale_out(SFT, RUNS, "sft_data_size", **option)


def test_real_runs_are_predicted_upwards(runs):
    """The sizes of the parallel runs grow by 0.9 % with the streams, and are six scales nevertheless."""
    found = jl.leave_one_scale_out(PARALLEL, runs("parallel"), "num_params")
    assert [level.value for level in found.levels] == [1571472384, 2774773760, 4353203200]
    assert [level.fitted for level in found.levels] == [18, 24, 30]
    assert found.scores.rows == 18
    assert found.scores.r2 > 0.999
