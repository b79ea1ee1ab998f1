"""How much there is to compile, counted in equations that JAX traces: it must not grow with domains or coefficients."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import jaxlaws as jl
from jaxlaws.fitting import starts
from jaxlaws.optimize import interior_point, mixture

pytestmark = pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")  # answers far from all runs are answers here


def equations(jaxpr):
    """The number of equations, with those of inner functions."""
    inner = [
        value
        for equation in jaxpr.eqns
        for parameter in equation.params.values()
        for value in (parameter if isinstance(parameter, (tuple, list)) else [parameter])
    ]
    inner = [getattr(value, "jaxpr", value) for value in inner]
    return len(jaxpr.eqns) + sum(equations(value) for value in inner if hasattr(value, "eqns"))


class Traced(Exception):
    """Carries what was traced, in place of a result."""


@pytest.fixture
def traced(monkeypatch):
    """The number of equations of the program that a call asks for first."""

    def stop(fn, static):
        def call(*args):
            raise Traced(equations(jax.make_jaxpr(lambda *arrays: fn(*args[:static], *arrays))(*args[static:]).jaxpr))

        return call

    monkeypatch.setattr(mixture, "_apart", stop(mixture._stepped, 4))
    monkeypatch.setattr(starts, "_compiled", stop(starts._phase, 2))

    def count(call):
        with pytest.raises(Traced) as found:
            call()
        return found.value.args[0]

    return count


def of_size(law, size):
    """A law with coefficients for so many domains."""
    one = next(iter(law.groups.values()))
    coefs = {v.name: np.resize(getattr(one, v.name), (size,) * len(v.shape)) for v in jl.variables(law.coefs)}
    return dataclasses.replace(law, groups={"group": law.coefs(**coefs)}, golden=())


@pytest.mark.parametrize("name", ["domain_mixture", "data_mixing"])
@pytest.mark.parametrize("options", [{}, {"targets": 0}, {"prior": 0.1, "strength": 0.1}])
def test_a_search_over_many_domains_is_as_large_as_one_over_a_few(name, options, traced):
    few, some, many = (
        traced(lambda size=size: jl.optimize_mixture(of_size(jl.laws[name], size), "group", **options))
        for size in (5, 9, 40)
    )
    assert some == many
    assert many < 1.1 * few
    assert few < 3000


@pytest.mark.parametrize("name", ["domain_mixture", "data_mixing"])
def test_a_search_is_found_over_many_domains(name):
    best = jl.optimize_mixture(of_size(jl.laws[name], 24), "group")
    assert best.converged
    assert best.gap < 1e-9


def runs(size, count=64):
    """Losses of as many domains as mixtures have."""
    shares = np.random.default_rng(0).dirichlet(np.ones(size), count)
    losses = {f"loss_domain_{i + 1}": 1 + np.exp(-shares[:, i]) for i in range(size)}
    return {f"proportion_domain_{i + 1}": column for i, column in enumerate(shares.T)} | losses


def test_a_fit_grows_by_a_few_equations_with_a_coefficient(traced):
    """And not with their square: those of its rows are lists, as XLA makes the best of that for a few."""
    law = jl.laws["data_mixing"]
    some, many = (traced(lambda size=size: jl.fit(law, runs(size), starts=2)) for size in (20, 40))
    assert many - some < 40 * 20


def test_a_fit_is_not_larger_than_it_was(traced):
    size = np.geomspace(200, 4e5, 12)
    assert traced(lambda: jl.fit(jl.laws["sft"], {"sft_data_size": size, "sft_loss": 1 + size**-0.3})) < 1300


@pytest.mark.parametrize("count", [3, interior_point.UNROLLED, interior_point.UNROLLED + 1, 30])
@pytest.mark.parametrize("sides", [1, 2])
def test_elimination_solves_equations_of_any_number(count, sides):
    rng = np.random.default_rng(count)
    half = rng.normal(size=(8, count, count))
    matrix, right = half @ half.transpose(0, 2, 1), rng.normal(size=(8, count, sides))
    diagonal = rng.uniform(size=(8, count))
    diagonal[0, 1] = np.inf  # which makes that unknown 0
    expected = np.zeros_like(right)
    for one in range(8):
        free = np.isfinite(diagonal[one])
        rest = matrix[one][np.ix_(free, free)] + np.diag(diagonal[one][free])
        expected[one, free] = np.linalg.solve(rest, right[one, free])
    with jax.enable_x64(True):
        arrays = [np.moveaxis(x, 0, -1) for x in (matrix, diagonal, *np.moveaxis(right, -1, 0))]
        found = np.transpose(jax.jit(interior_point.symmetric_solution)(*arrays), (2, 1, 0))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * abs(expected).max())
    assert (found[0, 1] == 0).all()


def test_what_is_only_data_chooses_no_program(compilations):
    law, options = jl.laws["domain_mixture"], {"weights": np.eye(5)[0]}
    jl.optimize_mixture(law, "410M", **options)
    several = [
        lambda: jl.optimize_mixture(law, "70M", lower=0.01, **options),
        lambda: jl.optimize_mixture(law, ["410M", "70M"], upper=[[0.5] * 5, [0.6] * 5], **options),
        lambda: jl.optimize_mixture(law, law.groups["305M"], available=1e9, budget=1e9, max_epochs=4, **options),
        lambda: jl.optimize_mixture(law, "410M", weights=np.full((2, 4, 5), [1, 0, 0, 0, 0])),
    ]
    with compilations() as count:
        for search in several:
            search()
    assert count == []


def test_bounds_of_a_fit_choose_no_program(compilations):
    size = np.geomspace(200, 4e5, 12)
    table = {"sft_data_size": size, "sft_loss": 1 + 5 * size**-0.3}
    first = jl.fit(jl.laws["sft"], table, bounds={"A": (None, None)})
    with compilations() as count:
        second = jl.fit(jl.laws["sft"], table, bounds={"A": (0, 4.5), "alpha": (0.01, 2)})
    assert count == []
    assert first.form == second.form
    assert second.coefs["all_data"].A == 4.5
    assert abs(first.coefs["all_data"].A - 5) < 1e-6
