"""The commands that hold out runs: evaluate --holdout and --by, and compare."""

from __future__ import annotations

import dataclasses
import io
import json

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import jaxlaws as jl

SFT = jl.laws["sft"]
SIZE = 200.0 * 2 ** np.arange(12)


def sft_runs():
    loss = np.concatenate([1.5 + 4 * SIZE**-0.25, 0.8 + 9 * SIZE**-0.4])
    loss *= 1 + 0.003 * np.random.default_rng(5).normal(size=24)
    return {"sft_data_size": np.tile(SIZE, 2), "sft_loss": loss, "group": np.repeat(["1", "two"], 12)}


RUNS = sft_runs()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pyarrow.csv.write_csv(pa.table(RUNS), "runs.csv")
    pq.write_table(pa.table(RUNS).rename_columns(["sft_data_size", "sft_loss", "model"]), "runs.parquet")
    return tmp_path


def test_evaluates_with_a_hold_out(run):
    status, out, err = run("evaluate", "sft", "runs.csv", "--holdout", "20% of sft_data_size", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    expected = jl.hold_out(SFT, RUNS, "sft_data_size>=102400")  # three scales of twelve
    assert (found["rows"], found["fitted"], found["holdout"]) == (6, 18, "20% of sft_data_size")
    assert found["r2"] == pytest.approx(expected.scores.r2, rel=1e-9)
    for name in ("1", "two"):
        group = found["groups"][name]
        assert group["fitted"] == 9
        assert group["held_out"]["nmae"] == pytest.approx(expected.group_scores[name].nmae, rel=1e-9)
        assert group["coefficients"] == pytest.approx(jl.as_dict(expected.fit.coefs[name]), rel=1e-6)
    again = run(
        "evaluate", "sft", "runs.parquet", "--holdout", "sft_data_size>1e5", "--group-column", "model", "--json"
    )
    assert json.loads(again[1])["r2"] == pytest.approx(found["r2"], rel=1e-12)
    with open("runs.csv", "rb") as file:
        assert run("evaluate", "sft", "-", "--holdout", "sft_data_size>1e5", stdin=file.read())[0] == 0
    lines = run("evaluate", "sft", "runs.csv", "--holdout", "sft_data_size>1e5")[1].splitlines()
    assert lines[0] == "sft fitted to 18 runs; 6 held out: sft_data_size>1e5"
    assert lines[3].split() == ["sft_loss", *(f"{found[key]:.6f}" for key in ("r2", "nmse", "nmae"))]
    assert lines[5].split() == ["group", "fitted", "held", "out", "R2", "NMAE"]
    scores = found["groups"]["two"]["held_out"]
    assert lines[8].split() == ["two", "9", "3", f"{scores['r2']:.6f}", f"{scores['nmae']:.6f}"]


def test_evaluates_scale_by_scale(run):
    status, out, err = run("evaluate", "sft", "runs.csv", "--by", "sft_data_size", "--smallest", 6, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    expected = jl.leave_one_scale_out(SFT, RUNS, "sft_data_size", smallest=6)
    assert found["rows"] == 12
    assert found["r2"] == pytest.approx(expected.scores.r2, rel=1e-9)
    assert found["error"] == pytest.approx(np.abs(expected.residuals).mean(), rel=1e-6)
    assert [level["value"] for level in found["levels"]] == SIZE[6:].tolist()
    assert [level["fitted"] for level in found["levels"]] == [12, 14, 16, 18, 20, 22]
    assert found["skipped"][1] == {"value": 400.0, "reason": "1 run at 1 smaller level"}
    lines = run("evaluate", "sft", "runs.csv", "--by", "sft_data_size", "--smallest", 6)[1].splitlines()
    assert lines[1].split() == ["sft_data_size", "fitted", "held", "out", "R2", "NMAE", "error"]
    assert lines[3].split()[:3] == ["12800", "12", "2"]
    assert lines[9].split()[:3] == ["all", "12", f"{found['r2']:.6f}"]
    assert lines[11].startswith("not predicted: 200 (no runs at smaller levels), 400 (1 run at 1 smaller level), ")
    assert lines[11].endswith("3200 (4 runs at 4 smaller levels) and 1 more")


def test_groups_that_are_not_predicted(run):
    # The second group has none of the smallest runs.
    pyarrow.csv.write_csv(pa.table(RUNS).take([*range(12), *range(14, 24)]), "some.csv")
    status, out, _ = run("evaluate", "sft", "some.csv", "--by", "sft_data_size")
    assert status == 0
    assert "not predicted at 3200: two (2 runs at 2 smaller levels)" in out


@jl.record
class Line:
    """Coefficients of a line in the logarithm, which takes less time to compile than laws of the catalogue."""

    a: jl.Scalar = jl.var("at one example")
    b: jl.Scalar = jl.var("per factor of e")


def line(c, x):
    return c.a + c.b * jnp.log(x.sft_data_size)


LINE = dataclasses.replace(SFT, title="a line", fn=line, coefs=Line, groups={"g": Line(a=1.0, b=1.0)})


def test_compares(run, monkeypatch):
    monkeypatch.setattr("jaxlaws.cli.shared.laws", {"line": LINE, "sft": SFT})
    words = ["compare", "line", "sft", "runs.csv", "--holdout", "sft_data_size>1e5"]
    status, out, err = run(*words, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert (found["rows"], found["held_out"], found["objective"]) == (24, 6, "squared")
    assert [row["law"] for row in found["laws"]] == ["sft", "test_cli_holdout"]
    assert [row["coefficients"] for row in found["laws"]] == [6, 4]
    for law, row in zip((SFT, LINE), found["laws"], strict=True):
        expected = jl.hold_out(law, RUNS, "sft_data_size>1e5")
        assert row["r2_held_out"] == pytest.approx(expected.scores.r2, rel=1e-6)
        assert row["error_held_out"] == pytest.approx(np.abs(expected.residuals).mean(), rel=1e-6)
        assert row["aicc"] == pytest.approx(jl.aicc(jl.fit(law, RUNS)), rel=1e-6)
    lines = run(*words)[1].splitlines()
    assert lines[0] == "24 runs, objective 'squared'; 6 held out: sft_data_size>1e5"
    assert lines[1].split("   ")[0] == "law"
    for text, row in zip(lines[3:5], found["laws"], strict=True):
        assert text.split()[:2] == [row["law"], f"{row['r2_held_out']:.6f}"]
    found = json.loads(run("compare", "line", "sft", "runs.csv", "--json")[1])
    assert found["held_out"] == 0
    assert found["laws"][0]["aicc"] < found["laws"][1]["aicc"]
    assert [row["r2_held_out"] for row in found["laws"]] == [None, None]


CONDITION = "is not a condition such as 'num_params>2e9'"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "sft", "runs.csv", "--holdout", "size>1e5"], "runs.csv: no column 'size'; the table has"),
        (["evaluate", "sft", "runs.csv", "--holdout", "sft_datasize>1e5"], "did you mean 'sft_data_size'?"),
        (["evaluate", "sft", "runs.csv", "--holdout", "sft_data_size>1e9"], "holds out none of 24 runs; sft_"),
        (["evaluate", "sft", "runs.csv", "--holdout", "sft_data_size>1"], "holds out all of 24 runs"),
        (["evaluate", "sft", "none.csv", "--holdout", "sft_loss >> 1"], f"hold-out 'sft_loss >> 1' {CONDITION}"),
        (["evaluate", "sft", "runs.csv", "--holdout", "120% of sft_data_size"], "a share must be more than 0%"),
        (["evaluate", "sft", "runs.csv", "--by", "group"], "column 'group' must hold numbers: 'two' in row 13"),
        (["evaluate", "sft", "runs.csv", "--by", "size"], "runs.csv: no column 'size'; the table has"),
        (["evaluate", "sft", "runs.csv", "--by", "sft_data_size", "--smallest", "0"], "'0' is not a number of scales"),
        (["evaluate", "sft", "runs.csv", "--by", "sft_data_size", "--smallest", "40"], "no level of 'sft_data_size'"),
        (["evaluate", "sft", "runs.csv", "--holdout", "a>1", "--by", "a"], "not allowed with argument --holdout"),
        (["evaluate", "sft", "runs.csv", "--holdout", "sft_loss>1", "--group", "x"], "--group-column says which"),
        (["evaluate", "sft", "runs.csv", "--holdout", "sft_loss>1", "--smallest", "3"], "--smallest is for --by"),
        (["evaluate", "sft", "runs.csv", "--by", "sft_data_size", "--coefs", "c.json"], "--coefs: with --holdout or"),
        (["evaluate", "sft", "runs.csv", "--objective", "squared"], "--objective is for a fit"),
        (["evaluate", "sft", "runs.csv", "--weights", "w"], "--weights is for a fit"),
        (["evaluate", "sft", "runs.csv", "--by", "sft_data_size", "--weights", "w"], "runs.csv: no column 'w'"),
        (["evaluate", "sft", "bad.csv", "--by", "sft_data_size"], "bad.csv: column 'sft_loss' must hold numbers: 'x'"),
        (["evaluate", "sft", "low.csv", "--holdout", "sft_data_size>500", "--objective", "relative"], "low.csv: column "
         "'sft_loss' must be positive for objective 'relative': row 2"),
        (["evaluate", "sft", "empty.csv", "--holdout", "sft_loss>1"], "empty.csv: the table has no rows"),
        (["evaluate", "sft", "none.csv", "--holdout", "sft_loss>1"], "none.csv: No such file or directory"),
        (["compare", "sft", "runs.csv", "--objective", "absolute"], "argument --objective: invalid choice"),
        (["compare", "sft"], "the following arguments are required: FILE"),
        (["compare", "sft", "stf", "runs.csv"], "unknown law 'stf'; did you mean 'sft'?"),
        (["compare", "sft", "sft", "runs.csv"], "sft is given twice"),
        (["compare", "sft", "moe", "runs.csv"], "runs.csv: moe: no column 'dense_parameter_count'"),
        (["compare", "sft", "runs.csv", "--smallest", "3"], "--smallest is for --by"),
        (["compare", "sft", "runs.csv", "--group", "model"], "runs.csv: sft: no column 'model'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(run, words, message):
    for name, row in (("bad", "200,x"), ("low", "200,-1")):
        with open(f"{name}.csv", "w") as file:
            file.write(f"sft_data_size,sft_loss\n400,2.5\n{row}\n800,2\n")
    with open("empty.csv", "w") as file:
        file.write("sft_data_size,sft_loss\n")
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_help_shows_examples(run):
    for command in ("evaluate", "compare"):
        status, out, _ = run(command, "--help")
        assert status == 0
        assert "examples:" in out
        assert '"20% of' in out


def test_compares_what_standard_input_has(run):
    stream = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(RUNS), stream)
    status, out, err = run("compare", "sft", "-", "--by", "sft_data_size", stdin=stream.getvalue())
    assert (status, err) == (0, "")
    expected = jl.compare(["sft"], RUNS, by="sft_data_size")
    first, *table = [line.rstrip() for line in str(expected).splitlines()]
    shown = [line.rstrip() for line in out.splitlines() if line.strip()]
    assert shown[0] == first
    assert shown[1:] == table
