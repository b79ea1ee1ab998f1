"""NumPy, vectorised by hand."""

from __future__ import annotations

import numpy as np


def prepare(case):
    """See the package."""
    fn, coefs = globals().get(case.name), case.coefs
    return None if fn is None else lambda: fn(coefs, *case.arrays)


def parallel(c, n, p):
    size, streams = n ** -c["alpha"], p ** -c["beta"]
    return c["c0"] + c["c1"] * size + c["c2"] * streams + c["c3"] * (size * streams)


def parallel_gradient(c, n, p):
    size, streams = n ** -c["alpha"], p ** -c["beta"]
    return (
        -c["alpha"] * size * (c["c1"] + c["c3"] * streams) / n,
        -c["beta"] * streams * (c["c2"] + c["c3"] * size) / p,
    )


def moe(c, n, e):
    return c["L_inf"] + c["K"] * n ** -c["alpha"] * e ** -c["beta"]


def moe_gradient(c, n, e):
    above = c["K"] * n ** -c["alpha"] * e ** -c["beta"]
    return -c["alpha"] * above / n, -c["beta"] * above / e


def sft(c, n):
    return c["L_inf"] + c["A"] * n ** -c["alpha"]


def sft_gradient(c, n):
    return (-c["alpha"] * c["A"] * n ** (-c["alpha"] - 1),)


def data_constrained(c, n, t, u):
    return (
        c["d"]
        + c["a"] * n ** -c["alpha"]
        + c["b"] * t ** -c["beta"]
        + c["c"] * u ** -c["gamma"]
        + c["e"] * (t / u) ** -c["delta"]
    )


def data_constrained_gradient(c, n, t, u):
    passes = c["delta"] * c["e"] * (t / u) ** -c["delta"]
    return (
        -c["alpha"] * c["a"] * n ** -c["alpha"] / n,
        (-c["beta"] * c["b"] * t ** -c["beta"] - passes) / t,
        (-c["gamma"] * c["c"] * u ** -c["gamma"] + passes) / u,
    )


def domain_mixture(c, p):
    return c["intercept"] + p @ c["coef_linear"].T + np.log(p + p.dtype.type(1e-6)) @ c["coef_log"].T


def domain_mixture_gradient(c, p):
    return (c["coef_linear"].mean(axis=0) + c["coef_log"].mean(axis=0) / (p + p.dtype.type(1e-6)),)


def data_mixing(c, p):
    return np.exp(c["c"]) + np.exp(p @ c["t"].T)


def data_mixing_gradient(c, p):
    return (np.exp(p @ c["t"].T) @ c["t"] / p.dtype.type(c["c"].size),)
