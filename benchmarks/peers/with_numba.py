"""numba: a parallel loop with fast mathematics, into kept outputs."""

from __future__ import annotations

import functools

import numba
import numpy as np
from numba import prange


def prepare(case):
    """See the package."""
    plain = globals().get(case.name)
    if plain is None:
        return None
    fn = compiled(plain)
    x = case.columns
    y = case.outputs(x)
    # A mixture is two matrices, of columns by rows; other laws have a few columns, each an array.
    arrays = (np.stack(x), np.stack(y)) if case.law.output_shape else (*x, *y)
    numbers = tuple(case.coefs.values())

    def run():
        fn(*arrays, *numbers)
        return tuple(arrays[1]) if case.law.output_shape else tuple(y)

    return run


@functools.cache
def compiled(plain):
    """A function that is compiled when it is first called with a dtype."""
    return numba.njit(plain, parallel=True, fastmath=True)


def parallel(n, p, y, c0, c1, c2, c3, alpha, beta):
    for i in prange(n.size):
        size, streams = n[i] ** -alpha, p[i] ** -beta
        y[i] = c0 + c1 * size + c2 * streams + c3 * (size * streams)


def parallel_gradient(n, p, dn, dp, c0, c1, c2, c3, alpha, beta):
    for i in prange(n.size):
        size, streams = n[i] ** -alpha, p[i] ** -beta
        dn[i] = -alpha * size * (c1 + c3 * streams) / n[i]
        dp[i] = -beta * streams * (c2 + c3 * size) / p[i]


def moe(n, e, y, L_inf, K, alpha, beta):
    for i in prange(n.size):
        y[i] = L_inf + K * n[i] ** -alpha * e[i] ** -beta


def moe_gradient(n, e, dn, de, L_inf, K, alpha, beta):
    for i in prange(n.size):
        above = K * n[i] ** -alpha * e[i] ** -beta
        dn[i] = -alpha * above / n[i]
        de[i] = -beta * above / e[i]


def sft(n, y, L_inf, A, alpha):
    for i in prange(n.size):
        y[i] = L_inf + A * n[i] ** -alpha


def sft_gradient(n, dn, L_inf, A, alpha):
    for i in prange(n.size):
        dn[i] = -alpha * A * n[i] ** -alpha / n[i]


def data_constrained(n, t, u, y, d, a, b, c, e, alpha, beta, gamma, delta):
    for i in prange(n.size):
        powers = a * n[i] ** -alpha + b * t[i] ** -beta + c * u[i] ** -gamma
        y[i] = d + powers + e * (t[i] / u[i]) ** -delta


def data_constrained_gradient(n, t, u, dn, dt, du, d, a, b, c, e, alpha, beta, gamma, delta):
    for i in prange(n.size):
        passes = delta * e * (t[i] / u[i]) ** -delta
        dn[i] = -alpha * a * n[i] ** -alpha / n[i]
        dt[i] = (-beta * b * t[i] ** -beta - passes) / t[i]
        du[i] = (-gamma * c * u[i] ** -gamma + passes) / u[i]


def domain_mixture(p, y, b, w, v):
    eps = p.dtype.type(1e-6)
    for i in prange(p.shape[1]):
        for k in range(5):
            y[k, i] = b[k]
        for j in range(5):
            log = np.log(p[j, i] + eps)
            for k in range(5):
                y[k, i] += w[k, j] * p[j, i] + v[k, j] * log


def domain_mixture_gradient(p, dp, b, w, v):
    eps, fifth = p.dtype.type(1e-6), p.dtype.type(0.2)
    linear, log = np.sum(w, axis=0) * fifth, np.sum(v, axis=0) * fifth
    for i in prange(p.shape[1]):
        for j in range(5):
            dp[j, i] = linear[j] + log[j] / (p[j, i] + eps)


def data_mixing(p, y, c, t):
    least = np.exp(c)
    for i in prange(p.shape[1]):
        for k in range(5):
            above = t[k, 0] * p[0, i]
            for j in range(1, 5):
                above += t[k, j] * p[j, i]
            y[k, i] = least[k] + np.exp(above)


def data_mixing_gradient(p, dp, c, t):
    fifth = p.dtype.type(0.2)
    for i in prange(p.shape[1]):
        for j in range(5):
            dp[j, i] = 0
        for k in range(5):
            above = t[k, 0] * p[0, i]
            for j in range(1, 5):
                above += t[k, j] * p[j, i]
            above = fifth * np.exp(above)
            for j in range(5):
                dp[j, i] += t[k, j] * above
