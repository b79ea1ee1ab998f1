"""Tables whose columns have unusual types or names: a right answer, or one line that says what is wrong."""

import datetime
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import jaxlaws as jl
from jaxlaws.fitting.runs import read_runs

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")

PARALLEL = jl.laws["parallel"]
RUNS = {"num_params": [1e9, 2e9, 4e9], "parallel_size": [1, 2, 4], "group": ["pile", "stack", "pile"]}
EXPECTED = [
    float(PARALLEL(g, num_params=np.float64(n), parallel_size=np.float64(p)))
    for n, p, g in zip(*RUNS.values(), strict=True)
]

NUMBERS = {
    "byte-swapped": np.array([1, 2, 4], ">f8"),
    "byte-swapped integers": np.array([1, 2, 4], ">i4"),
    "long double": np.array([1, 2, 4], np.longdouble),
    "half": np.array([1, 2, 4], np.float16),
    "masked nowhere": np.ma.array([1, 2, 4], mask=[0, 0, 0]),
    "decimals": [decimal.Decimal(1), decimal.Decimal(2), decimal.Decimal(4)],
    "chunks": pa.chunked_array([[1], [2, 4]]),
    "a series": pl.Series([1, 2, 4]),
}


@pytest.mark.parametrize("kind", list(NUMBERS))
def test_numbers_of_any_type_in_a_dict(kind):
    found = jl.predict_table(PARALLEL, {**RUNS, "parallel_size": NUMBERS[kind]})["loss"]
    np.testing.assert_allclose(found, EXPECTED, rtol=1e-13)


WIDE = [getattr(pl, name) for name in ("Int128", "UInt128") if hasattr(pl, name)]


@pytest.mark.parametrize("dtype", [*WIDE, pl.Decimal(20, 2), pl.Float32])
def test_numbers_of_any_type_in_polars(dtype):
    table = pl.DataFrame(RUNS).with_columns(pl.col("parallel_size").cast(dtype))
    np.testing.assert_allclose(jl.predict_table(PARALLEL, table)["loss"], EXPECTED, rtol=1e-13)


@pytest.mark.parametrize("dtype", [">f8", ">i4", "longdouble", "Int64"])
def test_numbers_of_any_type_in_pandas(dtype):
    table = pd.DataFrame(RUNS).astype({"parallel_size": dtype})
    np.testing.assert_allclose(jl.predict_table(PARALLEL, table)["loss"], EXPECTED, rtol=1e-13)


def test_integers_beyond_64_bits_are_numbers():
    large = {"tokens": [10**30, 10**12, 10**12], "params": [10**9] * 3}
    law = jl.laws["chinchilla"]
    expected = law("besiroglu2024", params=np.full(3, 1e9), tokens=np.array([1e30, 1e12, 1e12]))
    np.testing.assert_allclose(jl.predict_table(law, large, "besiroglu2024")["loss"], expected, rtol=1e-13)


def test_what_is_masked_is_missing():
    for masked in (np.ma.array([1, 2, 4], mask=[0, 1, 0]), np.ma.array([1.0, 2, 4], mask=[0, 1, 0])):
        with pytest.raises(jl.DataError, match=r"'parallel_size' .*: row 1$"):
            jl.predict_table(PARALLEL, {**RUNS, "parallel_size": masked})
        loss = PARALLEL("pile", num_params=np.full(3, 1e9), parallel_size=masked)
        assert np.isnan(loss).tolist() == [False, True, False]
    with pytest.raises(jl.DataError, match=r"'group' has no value: row 1$"):
        jl.predict_table(PARALLEL, {**RUNS, "group": np.ma.array(RUNS["group"], mask=[0, 1, 0])})


day = datetime.date(2026, 1, 2)
ODD = {
    "complex": np.array([1, 2, 4], complex),
    "records": np.zeros(3, [("a", float)]),
    "bytes": [b"1", b"2", b"4"],
    "dates": [day] * 3,
    "lists": [[1], [2, 3], []],
    "two axes": np.ones((3, 2)),
    "text": ["1", "two", "4"],
    "mixed": [1, "two", None],
    "objects": [object()] * 3,
}


@pytest.mark.parametrize("kind", list(ODD))
@pytest.mark.parametrize("form", [dict, pd.DataFrame, pl.DataFrame, pa.table])
def test_what_is_no_number_is_told_and_may_be_in_other_columns(kind, form):
    try:
        unused = form({**RUNS, "loss": EXPECTED, "other": ODD[kind]})
        used = form({**RUNS, "loss": EXPECTED, "parallel_size": ODD[kind]})
    except Exception:
        pytest.skip("there is no such table")
    for verb in (jl.predict_table, read_runs):
        with pytest.raises(jl.DataError, match="parallel_size") as error:
            verb(PARALLEL, used)
        assert "\n" not in str(error.value)
    assert jl.evaluate(PARALLEL, None, unused).r2 == pytest.approx(1)
    assert len(read_runs(PARALLEL, unused).group) == 3


def test_text_in_place_of_a_number_has_a_place():
    for form in (dict, pd.DataFrame, pl.DataFrame, pa.table):
        with pytest.raises(jl.DataError, match=r"'parallel_size' must hold numbers; it holds String: 'two' in row 1$"):
            jl.predict_table(PARALLEL, form({**RUNS, "parallel_size": ["1", "two", "4"]}))


@pytest.mark.parametrize(
    "names",
    [[0, 1, 2], pd.MultiIndex.from_product([["runs"], list(RUNS)]), [1.5, None, day], list("abc")],
)
def test_columns_may_have_any_names(names):
    table = pd.DataFrame(RUNS)
    table.columns = names
    for law in ("parallel", "domain_mixture", "mixture_power", "bimix"):
        for verb in (jl.predict_table, read_runs):
            with pytest.raises(jl.DataError, match=r"no column '.*the table has") as error:
                verb(jl.laws[law], table)
            assert "\n" not in str(error.value)
    both = pd.concat([pd.DataFrame(RUNS), table], axis=1)
    np.testing.assert_allclose(jl.predict_table(PARALLEL, both)["loss"], EXPECTED, rtol=1e-13)


def test_groups_that_are_no_text():
    for groups in ([["pile"]] * 3, [{"a": 1}] * 3, ["pile", 1, "pile"], [day] * 3):
        with pytest.raises(jl.DataError, match=r"'group' must hold names of groups; it holds"):
            jl.predict_table(PARALLEL, pd.DataFrame({**RUNS, "group": groups}))


@pytest.mark.parametrize("law", ["parallel", "nope", None, 3, jl.laws, jl.Law, pd.DataFrame(RUNS)])
def test_what_is_no_law_is_told(law):
    runs = {**RUNS, "loss": EXPECTED}
    for verb in (
        lambda: jl.predict_table(law, runs),
        lambda: jl.gradient_table(law, runs),
        lambda: jl.evaluate(law, None, runs),
        lambda: jl.fit(law, runs),
        lambda: jl.hold_out(law, runs, "num_params>1e9"),
        lambda: jl.published_draws(law),
        lambda: jl.bootstrap(law),
        lambda: jl.plot_fit(law),
        lambda: jl.plot_mixture(law),
        lambda: jl.plot_allocation(law),
        lambda: jl.aicc(law),
    ):
        with pytest.raises(TypeError, match=r"^(a law|a fit|the answer).* is needed, not ") as error:
            verb()
        assert "\n" not in str(error.value)


def test_a_law_by_name_for_coefficients_in_a_file(tmp_path):
    path = tmp_path / "coefs.json"
    path.write_text('{"mine": {"L_inf": 1, "A": 2, "alpha": 1}}')
    with pytest.raises(TypeError, match=r"a law such as .* is needed, not 'sft'"):
        jl.read_coefs(path, "sft")
    (tmp_path / "draws.csv").write_text("group,L_inf,A,alpha\nmine,1,5,0.3\nmine,1.1,5.2,0.31\n")
    with pytest.raises(TypeError, match=r"a law such as .* is needed, not 'sft'"):
        jl.read_draws(tmp_path / "draws.csv", "sft")
