"""Tables of every kind, good and bad."""

from __future__ import annotations

import decimal
import gzip
import json

import jax
import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sampling import KINDS as LAWS
from sampling import columns

import jaxlaws as jl
from jaxlaws import files, tables
from jaxlaws.columns import from_columns

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")  # few mixtures lie in the box fitted on

PARALLEL = jl.laws["parallel"]
MIXTURE = jl.laws["domain_mixture"]


def pandas_with_arrow(columns):
    with np.errstate(invalid="ignore"):  # pandas tries whether floats beyond all int64 are whole
        return pd.DataFrame(columns).convert_dtypes(dtype_backend="pyarrow")


KINDS = {
    "pandas": pd.DataFrame,
    "pandas with Arrow": pandas_with_arrow,
    "polars": pl.DataFrame,
    "arrow": pa.table,
    "dict": dict,
}


@pytest.fixture(params=list(KINDS))
def kind(request):
    return KINDS[request.param]


def column(table, name):
    return np.asarray(table[name], np.float64)


def names(table):
    return (
        table.column_names
        if isinstance(table, pa.Table)
        else list(table)
        if isinstance(table, dict)
        else [*table.columns]
    )


def test_the_same_kind_comes_out_with_the_columns_it_had(law, kind, quick):
    data = {"id": np.arange(8), **columns(law, 8), "note": ["x"] * 8}
    table = kind(data)
    group = list(law.groups)[-1]
    found = jl.predict_table(law, table, group)
    assert type(found) is type(table)
    assert names(found) == [*data, *law.output_columns]
    expected = np.asarray(law(group, from_columns(law, [data[c] for c in law.input_columns]))).reshape(8, -1)
    for i, name in enumerate(law.output_columns):
        np.testing.assert_allclose(column(found, name), expected[:, i], rtol=1e-13)
    assert list(found["note"]) == list(table["note"])
    assert names(table) == list(data), "the table that came in is not changed"


def test_a_group_per_row(law, kind, quick):
    groups = np.random.default_rng(0).choice(list(law.groups), 60)
    data = columns(law, 60)
    ids = [list(law.groups).index(g) for g in groups]
    expected = np.asarray(law(ids, from_columns(law, list(data.values())))).reshape(60, -1)
    for name, options in (("group", {}), ("group", {"group": "group"}), ("model", {"group": "model"})):
        found = jl.predict_table(law, kind({**data, name: groups.tolist()}), **options)
        for i, output in enumerate(law.output_columns):
            np.testing.assert_allclose(column(found, output), expected[:, i], rtol=1e-13)


@pytest.mark.parametrize("make", [pd.Categorical, pa.array, pl.Series, np.array, list])
def test_groups_may_be_categories_or_any_text(make):
    groups = ["stack", "pile", "stack"]
    data = {"n": [1e9] * 3, "p": [1, 2, 4]}
    expected = jl.predict_table(PARALLEL, {**data, "group": groups})["loss"]
    table = pl.DataFrame(data).with_columns(group=make(groups)) if make is pl.Series else pd.DataFrame(data)
    if make is not pl.Series:
        table["group"] = make(groups)
    np.testing.assert_array_equal(column(jl.predict_table(PARALLEL, table), "loss"), expected)
    encoded = pa.table({**data, "group": pa.array(groups).dictionary_encode()})
    np.testing.assert_array_equal(column(jl.predict_table(PARALLEL, encoded), "loss"), expected)
    enum = pl.DataFrame(data).with_columns(group=pl.Series(groups, dtype=pl.Enum(["stack", "pile"])))
    np.testing.assert_array_equal(column(jl.predict_table(PARALLEL, enum), "loss"), expected)


def test_arrow_has_several_kinds_of_strings():
    groups = pa.array(["stack", "pile"])
    expected = jl.predict_table(PARALLEL, {"n": [1e9] * 2, "p": [1, 2], "group": groups.to_pylist()})["loss"]
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.large_string())):
        table = pa.table({"n": [1e9] * 2, "p": [1, 2], "group": groups.cast(kind)})
        np.testing.assert_array_equal(column(jl.predict_table(PARALLEL, table), "loss"), expected)
    chunked = pa.chunked_array([groups[:1], groups[1:]])
    table = pa.table({"n": pa.chunked_array([[1e9], [1e9]]), "p": [1, 2], "group": chunked})
    np.testing.assert_array_equal(column(jl.predict_table(PARALLEL, table), "loss"), expected)


def test_dictionaries_may_differ_from_piece_to_piece():
    many = [f"other {i}" for i in range(100)]  # together too many for the indices

    def chunk(ids, words):
        return pa.DictionaryArray.from_arrays(pa.array(ids, pa.int8()), pa.array(words, pa.string()))

    def predict(*chunks):
        group = pa.chunked_array(chunks)
        n = np.full(len(group), 1e9)
        return column(
            jl.predict_table(PARALLEL, pa.table({"num_params": n, "parallel_size": n / n, "group": group})), "loss"
        )

    pile, stack = (float(PARALLEL(name, n=np.array(1e9), p=1.0)) for name in ("pile", "stack"))
    found = predict(chunk([0, 1], ["pile", "stack", *many]), chunk([0, 1, 0], ["stack", "pile", None, *many[::-1]]))
    np.testing.assert_allclose(found, [pile, stack, stack, pile, stack], rtol=1e-15)
    with pytest.raises(jl.DataError, match=r"column 'group', row 3: unknown .* 'other 0'"):
        predict(chunk([0, 1], ["pile", "stack"]), chunk([0, 1], ["pile", *many]))
    with pytest.raises(jl.DataError, match="column 'group' has no value: row 2"):
        predict(chunk([0, 1], ["pile", "stack"]), chunk([1, 0], ["pile", None]))
    with pytest.raises(jl.DataError, match="column 'group' has no value: row 1"):
        predict(chunk([0, None], ["pile", "stack"]))


def test_extrapolation_is_warned_of_or_refused():
    table = {"n": [1e9, 1e12], "p": [2, 2]}
    words = "1 of 2 rows outside the range that parallel was fitted on: num_params in 1"
    with pytest.warns(jl.RangeWarning, match=words) as caught:
        jl.predict_table(PARALLEL, table, "pile")
    assert caught[0].filename == __file__
    with pytest.raises(jl.DataError, match=words):
        jl.predict_table(PARALLEL, table, "pile", strict=True)
    with pytest.raises(jl.DataError, match=words):
        jl.gradient_table(PARALLEL, table, "pile", strict=True)


def test_names_that_almost_fit_are_told():
    def message(*names):
        with pytest.raises(jl.DataError) as error:
            jl.predict_table(PARALLEL, {name: [1e9] for name in names}, "pile")
        return str(error.value)

    assert message("Num Params", "p").endswith("did you mean 'Num Params'?")
    assert message(" num_params", "p").endswith("did you mean ' num_params'?")
    assert message("num_params;parallel_size").endswith("separated by ';', where a comma is needed")
    assert message("n_params", "n", "p") == "columns 'n_params' and 'n' are both names of 'num_params'; rename one"


def test_a_pandas_index_is_kept():
    table = pd.DataFrame(columns(PARALLEL, 5), index=list("edcba"))
    found = jl.predict_table(PARALLEL, table, "pile")
    assert list(found.index) == list("edcba")
    expected = PARALLEL("pile", num_params=table.num_params.to_numpy(), parallel_size=table.parallel_size.to_numpy())
    np.testing.assert_array_equal(found["loss"], expected)


def test_a_column_of_measurements_is_kept():
    found = jl.predict_table(PARALLEL, {"n": [1e9], "p": [2], "loss": [2.5]}, "pile")
    assert found["loss"] == [2.5]
    assert found["predicted_loss"].shape == (1,)
    with pytest.raises(jl.DataError, match="a column 'predicted_loss' already"):
        jl.predict_table(PARALLEL, found, "pile")


def test_coefficients_in_place_of_a_group():
    table = {"n": [1e9], "p": [2]}
    found = jl.predict_table(PARALLEL, table, PARALLEL.groups["stack"])
    assert found["loss"] == jl.predict_table(PARALLEL, table, "stack")["loss"]


def test_gradients_and_elasticities(law, kind, quick):
    data = columns(law, 20)
    group = next(iter(law.groups))
    x = from_columns(law, list(data.values()))
    several = law.output_shape == ("output",)
    weights = {"weights": np.arange(1.0, 1 + law.sizes["output"])} if several else {}
    both = jl.predict_table(law, kind(data), group, gradients=True, **weights)
    alone = jl.gradient_table(law, kind(data), group, **weights)
    percent = jl.gradient_table(law, kind(data), group, elasticity=True, **weights)
    output = "output" if several else law.output_text
    value, slope = jl.value_and_gradient(law, group, x, **weights)
    relative = jax.tree.map(lambda x, g: np.asarray(x * g) / np.reshape(value, (-1, *[1] * (g.ndim - 1))), x, slope)
    for record, table, prefix in (
        (slope, both, f"d_{output}_d_"),
        (slope, alone, f"d_{output}_d_"),
        (relative, percent, "elasticity_"),
    ):
        for v in jl.variables(law.inputs):
            expected = np.asarray(getattr(record, v.name)).reshape(20, -1)
            for i, name in enumerate(v.column_names(law.sizes)):
                np.testing.assert_allclose(column(table, prefix + name), expected[:, i], rtol=1e-12)
    assert law.output_columns[0] in names(both)
    assert law.output_columns[0] not in names(alone)


def test_weights_reach_the_gradient(quick):
    data = columns(MIXTURE, 5)
    found = jl.gradient_table(MIXTURE, data, "70M", weights=[1, 0, 0, 0, 0])
    x = from_columns(MIXTURE, list(data.values()))
    expected = np.asarray(jl.jacobian(MIXTURE, "70M", x).proportions)[:, 0]
    percent = jl.elasticity(MIXTURE, "70M", x, weights=[1, 0, 0, 0, 0]).proportions
    relative = jl.gradient_table(MIXTURE, data, "70M", elasticity=True, weights=[1, 0, 0, 0, 0])
    for i in range(5):
        np.testing.assert_allclose(relative[f"elasticity_proportion_domain_{i + 1}"], percent[:, i], rtol=1e-12)
        np.testing.assert_allclose(found[f"d_loss_d_proportion_domain_{i + 1}"], expected[:, i], rtol=1e-12)


def test_float32_stays_and_anything_else_is_float64():
    def dtype(n, p, **options):
        return jl.predict_table(PARALLEL, {"n": np.array([10**9], n), "p": np.array([2], p)}, "pile", **options)[
            "loss"
        ].dtype

    assert dtype("f4", "f4") == np.float32
    assert dtype("f4", "f8") == dtype("f8", "i8") == dtype("i8", "i8") == dtype("f4", "i8") == np.float64
    assert dtype("f8", "i8", dtype=np.float32) == np.float32
    assert dtype("f4", "f4", dtype=np.float64) == np.float64


def test_integers_beyond_the_exact_range_of_float64():
    found = jl.predict_table(PARALLEL, {"n": [2**62 + 1], "p": [1]}, "pile")["loss"]
    np.testing.assert_allclose(found, PARALLEL("pile", n=np.float64(2**62), p=1), rtol=1e-15)


def test_decimals_are_numbers():
    table = pa.table({"n": pa.array([decimal.Decimal("1000000000.5")]), "p": [1]})
    assert len(jl.predict_table(PARALLEL, table, "pile")["loss"]) == 1


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_columns_are_read_without_a_copy(make):
    values = np.arange(1.0, 1e5)
    frame = tables.as_frame(make({"x": values}))
    first = tables.numbers(frame, "x", 0)
    assert np.shares_memory(first, tables.numbers(frame, "x", 0))
    if make is pa.table:
        assert np.shares_memory(first, values)


def test_no_rows(kind):
    table = kind({"num_params": np.zeros(0), "parallel_size": np.zeros(0)})
    found = jl.predict_table(PARALLEL, table, "pile", gradients=True)
    assert len(found["loss"]) == len(found["d_loss_d_num_params"]) == 0


BAD = {
    "missing": ({"n": [1e9]}, r"no column 'parallel_size' \(nor 'p', 'degree', .*\); the table has 'n'"),
    "no columns": ({}, r"no column 'num_params'.*the table has no columns"),
    "text": ({"n": ["1e9", "x"], "p": [1, 2]}, r"column 'n' must hold numbers; it holds String"),
    "bool": ({"n": [True], "p": [1]}, r"column 'n' must hold numbers; it holds Boolean"),
    "null": ({"n": [1e9, None, 1e9], "p": [1, 2, 4]}, r"column 'n' has no value: row 1$"),
    "nan": ({"n": [1e9] * 9, "p": [np.nan] * 7 + [1, np.nan]}, r"column 'p' .*: rows 0, 1, 2, 3, 4 and 3 more"),
    "group": ({"n": [1e9] * 3, "p": [1] * 3, "group": ["pile", "pil", "pil"]}, r"'group', rows 1, 2: unknown .*'pile'"),
    "null group": ({"n": [1e9] * 2, "p": [1] * 2, "group": [None, "pile"]}, r"column 'group' has no value: row 0"),
    "number as group": ({"n": [1e9], "p": [1], "group": [1]}, r"'group' must hold names of groups; it holds Int64"),
    "no group": (
        {"n": [1e9], "p": [1]},
        r"parallel has 2 groups, and the table no column 'group': name a group, such as 'pile'",
    ),
    "lengths": ({"n": [1e9, 2e9], "p": [1]}, r"not a table"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_tables_are_told(case):
    data, words = BAD[case]
    with pytest.raises(jl.DataError, match=words):
        jl.predict_table(PARALLEL, data)
    if case not in ("lengths", "no columns"):
        with pytest.raises(jl.DataError):
            jl.predict_table(PARALLEL, pl.DataFrame(data))
        with pytest.raises(jl.DataError):
            jl.predict_table(PARALLEL, pd.DataFrame(data))


def mixture(*rows):
    return dict(zip(MIXTURE.input_columns, np.array(rows, float).T, strict=True))


def test_proportions_are_checked():
    good = [0.2] * 5
    words = r"'proportion_domain_1' to 'proportion_domain_5' must sum to 1, and the sum is 0.9 in row 1$"
    with pytest.raises(jl.DataError, match=words):
        jl.predict_table(MIXTURE, mixture(good, [0.2, 0.2, 0.2, 0.2, 0.1]), "70M")
    with pytest.raises(jl.DataError, match=r"column 'proportion_domain_2' must be greater than -1e-06: rows 0, 2"):
        jl.predict_table(MIXTURE, mixture([1.5, -0.5, 0, 0, 0], good, [1.5, -0.5, 0, 0, 0]), "70M")
    jl.predict_table(MIXTURE, mixture([1 + 1e-9, -1e-9, 0, 0, 0]), "70M")
    single = {name: values.astype(np.float32) for name, values in columns(MIXTURE, 10_000).items()}
    jl.predict_table(MIXTURE, single, "70M")


@pytest.mark.parametrize("off", [9e-7, -9e-7, 1.1e-6, -1.1e-6, 9.9e-3, -9.9e-3, 1.1e-2, -1.1e-2])
def test_how_far_from_1_proportions_may_sum(off):
    table = mixture([0.2 + off, 0.2, 0.2, 0.2, 0.2])
    if abs(off) < 1e-6:
        jl.predict_table(MIXTURE, table, "70M")
    elif abs(off) < 1e-2:
        with pytest.warns(jl.ProportionsWarning, match="proportions did not sum to 1"):
            jl.predict_table(MIXTURE, table, "70M")
    else:
        with pytest.raises(jl.DataError, match="must sum to 1"):
            jl.predict_table(MIXTURE, table, "70M")


def test_ends_of_the_range_in_float32_are_inside(law):
    for end in (0, 1):
        row = [np.ravel(v.range[end]) for v in jl.variables(law.inputs)]
        table = {
            name: np.array([x], np.float32) for name, x in zip(law.input_columns, np.concatenate(row), strict=True)
        }
        if any(v.total is not None for v in jl.variables(law.inputs)):
            continue  # the ends do not sum to 1
        outside = tables.Outside(law)
        outside.add(tables.read(law, tables.as_frame(table), next(iter(law.groups))))
        assert outside.rows == 0


def test_a_group_for_each_row_must_fit_the_rows():
    table = {"n": [1e9] * 3, "p": [1, 2, 4]}
    expected = jl.predict_table(PARALLEL, {**table, "group": ["pile", "stack", "pile"]})["loss"]
    for groups in (["pile", "stack", "pile"], [0, 1, 0], np.array([0, 1, 0])):
        np.testing.assert_array_equal(jl.predict_table(PARALLEL, table, groups)["loss"], expected)
    for groups in ([0, 1], np.zeros(4, int), np.zeros((3, 1), int)):
        with pytest.raises(jl.DataError, match="there are 3 rows, and groups of shape"):
            jl.predict_table(PARALLEL, table, groups)
    with pytest.raises(IndexError):
        jl.predict_table(PARALLEL, table, [0, 1, 9])
    with pytest.raises(jl.DataError, match="one set of coefficients"):
        jl.predict_table(PARALLEL, table, jl.stack(PARALLEL.groups.values()))


def test_other_columns_of_a_dict_may_be_anything():
    table = {"n": [1e9], "p": [1], "emb": np.ones((1, 4)), "what": [{"a": object()}]}
    found = jl.predict_table(PARALLEL, table, "pile")
    assert found["emb"] is table["emb"]
    assert found["loss"].shape == (1,)


def test_dtype_must_be_a_float():
    with pytest.raises(TypeError, match="floating-point"):
        jl.predict_table(PARALLEL, {"n": [1e9], "p": [1]}, "pile", dtype=np.int32)


def test_an_input_without_a_floor_must_be_positive():
    import dataclasses

    @jl.record
    class Inputs:
        tokens: jl.Scalar = jl.var("tokens", unit="tokens")

    law = dataclasses.replace(jl.laws["sft"], fn=lambda c, x: c.A * x.tokens, inputs=Inputs)
    with pytest.raises(jl.DataError, match="column 'tokens' must be positive: rows 1, 2"):
        jl.predict_table(law, {"tokens": [1.0, 0.0, -1.0]}, "('gpt2', 'flan')")
    assert jl.in_range(law, tokens=[-1.0, 1e99]).tokens.all(), "of unknown range"


def test_what_is_no_table_and_what_is_no_group():
    with pytest.raises(jl.DataError, match=r"not a table of columns .*: builtins\.int"):
        jl.predict_table(PARALLEL, 3)
    with pytest.raises(jl.DataError, match="is lazy; collect it first"):
        jl.predict_table(PARALLEL, pl.LazyFrame({"n": [1e9]}), "pile")
    with pytest.raises(jl.UnknownNameError, match=r"group of parallel, or column, 'pil'"):
        jl.predict_table(PARALLEL, {"n": [1e9], "p": [1]}, "pil")
    with pytest.raises(jl.DataError, match="'pile' is a group of parallel and a column"):
        jl.predict_table(PARALLEL, {"n": [1e9], "p": [1], "pile": [0]}, "pile")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_table_is_its_rows_in_any_order(quick, data):
    name = data.draw(st.sampled_from(LAWS))
    law = jl.laws[name]
    count = data.draw(st.integers(1, 30))
    table = {**columns(law, count, seed=data.draw(st.integers(0, 99)))}
    table["group"] = data.draw(st.lists(st.sampled_from(list(law.groups)), min_size=count, max_size=count))
    whole = jl.predict_table(law, table)
    order = np.array(data.draw(st.permutations(range(count))))
    mixed = {
        key: np.asarray(table[key], object if key == "group" else float)[order]
        for key in data.draw(st.permutations(list(table)))
    }
    make = data.draw(st.sampled_from([pd.DataFrame, pl.DataFrame, lambda d: d]))
    found = jl.predict_table(law, make({k: v.tolist() for k, v in mixed.items()}))
    for output in law.output_columns:
        np.testing.assert_allclose(column(found, output), whole[output][order], rtol=1e-13)


def test_rows_outside_the_fitted_range_are_counted():
    outside = tables.Outside(PARALLEL)
    for n in ([1e9, 1e12, 1.0], [2e9, 3e9, 1e10]):
        frame = tables.as_frame({"n": np.array(n), "p": np.array([1.0, 8.0, 2.0])})
        outside.add(tables.read(PARALLEL, frame, "pile"))
    assert (outside.rows, outside.of) == (4, 6)
    assert str(outside) == (
        "4 of 6 rows outside the range that parallel was fitted on: "
        "num_params in 3 (fitted on 5.35813e+08 to 4.38385e+09), parallel_size in 2 (fitted on 1 to 4)"
    )


def test_real_runs_lie_within_the_range(law, runs):
    frame = tables.as_frame(pd.read_csv(runs(law.name)))
    outside = tables.Outside(law)
    rows = tables.read(law, frame)
    outside.add(rows)
    assert outside.rows == 0
    for v in jl.variables(law.inputs):
        for end, pick in zip(v.range, (np.min, np.max), strict=True):
            np.testing.assert_array_equal(pick(getattr(rows.inputs, v.name), axis=0), end)


def test_scores_of_real_runs(law, runs, source):
    """R2 of the shipped coefficients on the training runs equals that of the published code."""
    table = pd.read_csv(runs(law.name))
    predict = source(law.name)
    predicted = [predict([row], row["group"])[0] for row in table.to_dict("records")]
    predicted = np.array([[row[name] for name in law.output_columns] for row in predicted])
    measured = table[list(law.output_columns)].to_numpy()
    residual = ((predicted - measured) ** 2).sum(axis=0) / ((measured - measured.mean(axis=0)) ** 2).sum(axis=0)
    scores = jl.evaluate(law, None, table)
    assert scores.r2 == pytest.approx(1 - residual.mean(), rel=1e-12)
    assert scores.rows == len(table)
    assert scores.r2 > 0.93


@pytest.mark.parametrize("name", ["parallel", "domain_mixture"])
def test_scores_are_those_of_sldbench(name):
    law = jl.laws[name]
    table = columns(law, 300)
    group = list(law.groups)[-1]
    predicted = jl.predict_table(law, table, group)
    random = np.random.default_rng(0)
    measured = {c: predicted[c] + random.normal(0, 0.02, 300) for c in law.output_columns}
    nmse, nmae = [], []
    for c in law.output_columns:
        spread = measured[c] - np.mean(measured[c])
        nmse.append(np.mean((predicted[c] - measured[c]) ** 2) / np.var(measured[c]))
        nmae.append(np.mean(np.abs(predicted[c] - measured[c])) / np.mean(np.abs(spread)))
    scores = jl.evaluate(law, group, {**table, **measured})
    assert scores.rows == 300
    assert scores.nmse == pytest.approx(np.mean(nmse), rel=1e-10)
    assert scores.nmae == pytest.approx(np.mean(nmae), rel=1e-10)
    assert scores.r2 == pytest.approx(1 - np.mean(nmse), rel=1e-10)
    for c, mse, mae in zip(law.output_columns, nmse, nmae, strict=True):
        assert scores.outputs[c] == pytest.approx({"r2": 1 - mse, "nmse": mse, "nmae": mae}, rel=1e-10)


def test_scores_of_a_measurement_that_does_not_vary():
    scores = jl.evaluate(PARALLEL, "pile", {"n": [1e9, 2e9], "p": [1, 2], "loss": [2.0, 2.0]})
    assert (scores.nmse, scores.nmae, scores.r2) == (np.inf, np.inf, -np.inf)


def test_evaluate_names_the_missing_output():
    with pytest.raises(jl.DataError, match=r"no column 'loss'; the table has 'n', 'p'"):
        jl.evaluate(PARALLEL, "pile", {"n": [1e9], "p": [1]})
    with pytest.raises(jl.DataError, match="no rows"):
        jl.evaluate(PARALLEL, "pile", {"n": np.zeros(0), "p": np.zeros(0), "loss": np.zeros(0)})


def test_any_eager_frame_of_narwhals_will_do():
    frame = nw.from_dict({"n": [1e9], "p": [1.0]}, backend="polars")
    assert isinstance(jl.predict_table(PARALLEL, frame, "pile"), (nw.DataFrame, pl.DataFrame))


# Tables from files. Folders are in test_saved.


def test_the_same_table_from_every_form(tmp_path):
    runs = {"num_params": [1e9, 2e9, 4.5e9], "parallel_size": [1, 2, 4], "group": ["pile", "stack", "pile"]}
    rows = [dict(zip(runs, row, strict=True)) for row in zip(*runs.values(), strict=True)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    text = "\n".join(",".join(map(str, row)) for row in [list(runs), *(row.values() for row in rows)]).encode()
    pq.write_table(pa.table(runs), tmp_path / "a.parquet")
    for name, data in {"a.csv": text, "a.csv.gz": gzip.compress(text), "a.jsonl": lines, "b": text}.items():
        (tmp_path / name).write_bytes(data)
    for name, form in [*((n, None) for n in ("a.parquet", "a.csv", "a.csv.gz", "a.jsonl")), ("b", "csv")]:
        for path in (tmp_path / name, str(tmp_path / name)):
            assert jl.read_table(path, form).equals(pa.table(runs)), name
    expected = jl.predict_table(PARALLEL, runs)["loss"]
    np.testing.assert_allclose(jl.predict_table(PARALLEL, jl.read_table(tmp_path / "a.csv"))["loss"], expected)


CSV = {  # what is written, and what is read
    "whole": (["3", " 4", "", "-5"], [3, 4, None, -5]),
    "broken": (["3", "4.5", "1e9", ""], [3.0, 4.5, 1e9, None]),
    "not a number": (["3", "nan", "2", "1"], ["3.0", "nan", "2.0", "1.0"]),
    "large": (["3", "12345678901234567890", "", ""], [3.0, 12345678901234567890.0, None, None]),
    "a word": (["3", "4", "5", "six"], None),
    "NA": (["3", "4", "NA", ""], None),
    "leading zeros": (["007", "8", "9", "10"], None),
    "hexadecimal": (["0x1f", "8", "9", "10"], None),
    "a hash": (["12e4567", "8", "9", "10"], None),
    "nothing": (["", "", "", ""], None),
    "group": (["70", "410", "70", "70"], None),
    "words": (["a", " b ", "", "d"], None),
}


@pytest.mark.parametrize("block", [1 << 21, 200])
def test_columns_of_csv_are_numbers_where_every_value_is_one(tmp_path, monkeypatch, block):
    monkeypatch.setattr(files, "BLOCK_BYTES", block)  # types are not told by the first lines alone
    lines = [list(CSV), *zip(*(written for written, _ in CSV.values()), strict=True)]
    (tmp_path / "a.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    table = jl.read_table(tmp_path / "a.csv")
    assert table.column_names == list(CSV)
    for name, (written, read) in CSV.items():
        found = table[name].to_pylist()
        assert (list(map(str, found)) if name == "not a number" else found) == (written if read is None else read)
    types = [table[name].type for name in list(CSV)[:4]]
    assert types == [pa.int64(), pa.float64(), pa.float64(), pa.float64()]


def test_types_of_json_lines_are_those_of_all_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK_BYTES", 60)
    rows = [{"n": 1, "late": None, "none": None}] * 20 + [{"n": 2.5, "late": 3, "none": None, "new": "x"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = jl.read_table(tmp_path / "a.jsonl")
    assert table.to_pylist() == [{"new": None, **row} for row in rows]
    assert table.schema.types == [pa.float64(), pa.int64(), pa.string(), pa.string()]


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    (tmp_path / "a.csv").write_text("num_params,parallel_size\n")
    assert jl.read_table(tmp_path / "a.csv").equals(
        pa.table({n: pa.array([], pa.string()) for n in ("num_params", "parallel_size")})
    )
    pq.write_table(pa.table({"n": pa.array([], pa.float32())}), tmp_path / "a.parquet")
    assert jl.read_table(tmp_path / "a.parquet").schema.types == [pa.float32()]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"n,p\n1,2\n3\n", "Expected 2 columns, got 1"),
        ("a.csv", b"n,n\n1,2\n", "2 columns are called 'n'"),
        ("a.csv.gz", b"n,p\n1,2\n", ""),
        ("a.jsonl", b"", "the file is empty"),
        ("a.json", b'[{"n": 1}]', "this is a JSON array"),
        ("a.jsonl", b'{"n": 1}\n[2]\n', "line 2 is not an object"),
        ("a.jsonl", b'{"n": 1}\n{"n"\n', "JSON parse error"),
        ("a.parquet", b"n,p\n1,2\n", "Parquet"),
        ("a.xlsx", b"x", "told by its suffix: .parquet, .*format="),
    ],
)
def test_files_that_hold_no_table(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(jl.DataError, match=f"^{path}: .*{words}") as error:
        jl.read_table(path)
    assert "\n" not in str(error.value)


def test_paths_and_formats_that_there_are_not(tmp_path):
    with pytest.raises(FileNotFoundError):
        jl.read_table(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="format must be one of 'parquet', 'csv', 'jsonl', not 'xlsx'"):
        jl.read_table(tmp_path / "a.csv", "xlsx")
