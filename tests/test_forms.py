"""Laws with several outputs, laws without groups, and laws in files of the user's own."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import jaxlaws as jl
from jaxlaws.law import Law

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")  # answers far from all runs are answers here

STEP = jl.laws["step_law"]
RECTIFIED = jl.laws["rectified_sft"]
HINT = "there is none; give coefficients, such as those of a fit"


def test_several_outputs_are_the_last_axis():
    found = STEP("dense", params=np.array([1e9, 7e9]), tokens=1e12)
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found[:, 1], 0.58 * 1e12**0.571)
    assert STEP.output_columns == ("learning_rate", "batch_size")
    slopes = jl.jacobian(STEP, "dense", params=np.array([1e9, 7e9]), tokens=1e12)
    np.testing.assert_allclose(slopes.params[:, 0], -0.713 * found[:, 0] / np.array([1e9, 7e9]))
    np.testing.assert_allclose(slopes.params[:, 1], 0)


def test_several_outputs_have_no_mean():
    for verb in (jl.gradient, jl.value_and_gradient, jl.hessian, jl.elasticity):
        with pytest.raises(TypeError, match=r"a mean would mean nothing: learning_rate, batch_size; give weights"):
            verb(STEP, "dense", params=1e9, tokens=1e10)
    rate = jl.elasticity(STEP, "dense", params=1e9, tokens=1e10, weights=[1, 0])
    np.testing.assert_allclose(rate.params, -0.713, rtol=1e-5)


def test_several_outputs_in_tables():
    rows = {"N": [1e9], "tokens": [1e11]}
    found = jl.predict_table(STEP, rows, "dense")
    assert set(found) == {"N", "tokens", "learning_rate", "batch_size"}
    found = jl.gradient_table(STEP, rows, "dense", weights=[0, 1])
    np.testing.assert_allclose(found["d_output_d_params"], 0)
    slopes = jl.gradient_table(STEP, rows, "dense")
    assert list(slopes)[2:] == [f"d_{out}_d_{x}" for out in STEP.output_columns for x in ("params", "tokens")]
    np.testing.assert_allclose(slopes["d_batch_size_d_tokens"], found["d_output_d_tokens"])
    np.testing.assert_allclose(
        jl.gradient_table(STEP, rows, "dense", elasticity=True)["elasticity_learning_rate_params"], -0.713
    )
    assert jl.sldbench.law(STEP)([{"params": 1e9, "tokens": 1e11}], "dense")[0]["batch_size"] > 1e6


def test_several_outputs_are_fitted_together():
    random = np.random.default_rng(0)
    x = {"params": random.uniform(1e8, 1e9, 40), "tokens": random.uniform(1e9, 1e11, 40)}
    runs = x | dict(zip(STEP.output_columns, np.asarray(STEP("dense", x)).T, strict=True))
    fit = jl.fit(STEP, runs)
    for name, value in jl.as_dict(STEP.groups["dense"]).items():
        np.testing.assert_allclose(jl.as_dict(fit.coefs["all_data"])[name], value, rtol=1e-6)
    interval = jl.predict_interval(fit, "all_data", params=[1e9, 2e9], tokens=1e10)
    assert interval.low.shape == (2, 2)
    assert jl.plot_fit(fit).axes


def test_several_outputs_on_the_command_line(run):
    status, out, _ = run("predict", "deepseek", "compute=1e20", "--json")
    row = json.loads(out)
    assert (status, list(row)) == (0, ["compute", "learning_rate", "batch_size", "flop_per_token", "tokens"])
    status, out, _ = run(
        "predict", "step_law", "params=1e9", "tokens=1e10", "--group", "dense", "--gradients", "--json"
    )
    row = json.loads(out)
    assert list(row)[2:6] == ["learning_rate", "batch_size", "d_learning_rate_d_params", "d_learning_rate_d_tokens"]
    np.testing.assert_allclose(row["d_learning_rate_d_params"], -0.713 * row["learning_rate"] / 1e9)
    status, out, _ = run(
        "gradient", "step_law", "params=1e9", "tokens=1e10", "--group", "dense", "--weights", "0,1", "--json"
    )
    assert json.loads(out)["d_output_d_params"] == 0
    out = run("show", "step_law")[1]
    assert "learning_rate, batch_size = (c*params**alpha*tokens**beta, d*tokens**gamma)" in out


def test_a_law_without_groups_asks_for_coefficients(run):
    with pytest.raises(jl.UnknownNameError, match=HINT):
        RECTIFIED("flan", sft_data_size=1e3)
    with pytest.raises(jl.DataError, match="rectified_sft has no group; give coefficients"):
        jl.predict_table(RECTIFIED, {"sft_data_size": [1e3]})
    with pytest.raises(KeyError):
        jl.sldbench.law("rectified_sft")([{"sft_data_size": 1e3}], "flan")
    assert run("predict", "rectified_sft", "sft_data_size=1e3")[0] == 2
    for command in (
        ("example", "rectified_sft"),
        ("allocate", "rectified_sft", "--budget", "1e9"),
        ("mixture", "bimix"),
    ):
        status, _, err = run(*command)
        assert status == 2
        assert f"{command[1]} has no group" in err
    assert "the form alone" in run("show", "rectified_sft")[1]
    assert json.loads(run("show", "rectified_sft", "--json")[1])["groups"] == {}


def test_a_law_without_groups_is_fitted(run, tmp_path):
    size = np.geomspace(200, 4e5, 20)
    coefs = RECTIFIED.golden[0][0]
    np.savetxt(
        tmp_path / "runs.csv",
        np.stack([size, RECTIFIED(coefs, sft_data_size=size)], 1),
        delimiter=",", header="sft_data_size,sft_loss", comments="",
    )  # fmt: skip
    status, *_ = run("fit", "rectified_sft", tmp_path / "runs.csv", "-o", tmp_path / "coefs.json")
    assert status == 0
    status, out, _ = run("predict", "rectified_sft", "sft_data_size=1e6", "--coefs", tmp_path / "coefs.json", "--json")
    np.testing.assert_allclose(json.loads(out)["sft_loss"], RECTIFIED(coefs, sft_data_size=np.float64(1e6)), rtol=1e-6)


def test_vectors_of_a_law_without_groups_are_as_long_as_the_columns():
    law = jl.laws["bimix"]
    assert law.sizes == {"domain": 2}
    random = np.random.default_rng(0)
    shares, steps = random.dirichlet(np.ones(3), 40), random.uniform(1e3, 1e5, 40)
    coefs = law.coefs(C=[1.0, 2.0, 3.0], B=[5.0, 6.0, 7.0], alpha=[0.1, 0.05, 0.2], beta=[0.3, 0.4, 0.5])
    losses = np.asarray(law(coefs, proportions=shares, steps=steps))
    runs = {f"proportion_domain_{i}": shares[:, i - 1] for i in (1, 2, 3)} | {"steps": steps}
    runs |= {f"loss_domain_{i}": losses[:, i - 1] for i in (1, 2, 3)}
    fit = jl.fit(law, runs)
    np.testing.assert_allclose(fit.coefs["all_data"].beta, [0.3, 0.4, 0.5], rtol=1e-5)
    best = jl.optimize_mixture(fit.law, fit.coefs["all_data"], steps=1e5)
    assert best.converged
    assert best.gap < 1e-9


def test_a_law_in_a_file(tmp_path, run):
    path = tmp_path / "mine.py"
    with pytest.raises(FileNotFoundError):
        jl.law_in(path)
    path.write_text("LAW = 3\n")
    with pytest.raises(ValueError, match="has no law called LAW"):
        jl.law_in(path)
    assert run("show", path)[2] == f"jaxlaws: {path}: ValueError: {path} has no law called LAW\n"
    path.write_text("1 / 0\n")
    assert run("show", path)[2] == f"jaxlaws: {path}, line 1: ZeroDivisionError: division by zero\n"
    assert run("show", tmp_path / "other.py")[0] == 2


def test_sizes_need_an_example():
    law = dataclasses.replace(jl.laws["bimix"], golden=())
    assert isinstance(law, Law)
    with pytest.raises(ValueError, match="bimix has neither a group nor golden values"):
        _ = law.sizes
