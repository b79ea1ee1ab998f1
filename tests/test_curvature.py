"""What is found out about functions, against their second derivatives and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import QUICK

import jaxlaws as jl
from jaxlaws.numerics import at_least, log, positive_or, power, saturation, worn
from jaxlaws.optimize.curvature import curve

LOW, HIGH = np.array([-1.0, -2.0], np.float32), np.array([3.0, 2.0], np.float32)

# Functions of x and y, themselves in LOW to HIGH, and which of convex, concave, log_convex, log_concave are known.
KNOWN = {
    "affine": (lambda x, y, c: 2 * x - 3 * y + c, "convex concave"),
    "sum of powers": (lambda x, y, c: c + 2 * power(jnp.exp(x), -0.3) + jnp.exp(y) ** 2, "convex log_convex"),
    "less a power": (lambda x, y, c: c - power(jnp.exp(x), -0.3), "concave"),
    "product of powers": (lambda x, y, c: c * jnp.exp(x) / jnp.exp(y), "convex log_convex log_concave"),
    "power of a sum": (lambda x, y, c: power(jnp.exp(x) + jnp.exp(y), 0.5), "convex log_convex"),
    "one over a sum": (lambda x, y, c: power(jnp.exp(x) + jnp.exp(y), -0.5), "log_concave"),
    "log of a sum": (lambda x, y, c: log(jnp.exp(x) + c), "convex"),
    "log": (lambda x, y, c: log(x + 2), "concave"),
    "one over what is positive": (lambda x, y, c: c / (x + 2), "convex log_convex"),
    "one over what is not": (lambda x, y, c: c / (x + 0.5), ""),
    "maximum": (lambda x, y, c: jnp.maximum(x, -y), "convex"),
    "minimum": (lambda x, y, c: jnp.minimum(x, -y), "concave"),
    "square of what is positive": (lambda x, y, c: (x + 2) ** 2, "convex log_concave"),
    "square of what is not": (lambda x, y, c: x**2, ""),
    "product": (lambda x, y, c: x * y, ""),
    "difference of powers": (lambda x, y, c: jnp.exp(x) - jnp.exp(y), ""),
    "sine": (lambda x, y, c: jnp.sin(x), ""),
    "floors that are not met": (
        lambda x, y, c: at_least(jnp.exp(x), 0.1) + positive_or(jnp.exp(y), 0.1),
        "convex log_convex",
    ),
    "a floor that is": (lambda x, y, c: power(at_least(jnp.exp(x), 1.0), 2.0), ""),
    "a choice by what is known": (
        lambda x, y, c: jnp.where(c > 1, jnp.exp(x), jnp.sin(y)),
        "convex log_convex log_concave",
    ),
    "what saturates": (lambda x, y, c: saturation(c * jnp.exp(x - y)), "log_concave"),
    "what saturates beyond a constant": (lambda x, y, c: saturation(c * jnp.exp(x - y), 1e-3), "log_concave"),
    "what saturates from below 0": (lambda x, y, c: saturation(c * jnp.exp(x - y), -0.3), ""),
    "a power of that": (lambda x, y, c: power(saturation(jnp.exp(x)) * jnp.exp(y), -0.5), "convex log_convex"),
    "saturation of what is convex": (lambda x, y, c: saturation(jnp.exp(x) + jnp.exp(y)), ""),
    "saturation of what is concave": (lambda x, y, c: saturation(y + 2), "concave"),
    "what is worn": (lambda x, y, c: worn(jnp.exp(x), jnp.exp(y), 0.3 * c), "log_concave"),
    "worn to a known limit": (lambda x, y, c: power(worn(jnp.exp(x), c, 5.0), -0.3), "convex log_convex"),
    "worn to a limit that is": (
        lambda x, y, c: worn(jnp.exp(x), power(jnp.minimum(jnp.exp(x), jnp.exp(y)), 0.7), c),
        "log_concave",
    ),
    "worn at no scale": (lambda x, y, c: worn(jnp.exp(x), jnp.exp(y), -c), ""),
    "worn of what is convex": (lambda x, y, c: worn(jnp.exp(x) + 1, jnp.exp(y), c), ""),
    "root": (lambda x, y, c: jnp.sqrt(x + 2), "concave log_concave"),
    "jitted": (jax.jit(lambda x, y, c: jnp.exp(x) + c), "convex log_convex"),
    "a constant": (lambda x, y, c: jnp.exp(c), "convex concave log_convex log_concave"),
    "a loop": (lambda x, y, c: jax.lax.fori_loop(0, 2, lambda _, t: jnp.exp(-t), x), ""),
    "a whole number": (lambda x, y, c: x.astype(int).astype(float), ""),
    "a comparison as a factor": (lambda x, y, c: (x > 0) * y, ""),
    "a negative factor": (lambda x, y, c: (1 - c) * jnp.exp(x), "concave"),
}


WHATS = ("convex", "concave", "log_convex", "log_concave")


@pytest.fixture(scope="module")
def found():
    """What is found out about all of these functions; their values, and the second derivatives that should have a sign.

    All of them in one program, or rather two: what is found out is told in single precision.
    """

    def curves(low, high, c):
        return {name: curve(lambda x, c, fn=fn: fn(*x, c), low, high, c)._asdict() for name, (fn, _) in KNOWN.items()}

    def derivatives(points, c):
        def of(fn, known):
            value = lambda p: fn(p[0], p[1], c)  # noqa: E731
            logarithm = lambda p: log(value(p))  # noqa: E731
            bends = [jax.vmap(jax.hessian(logarithm if "log" in what else value))(points) for what in known]
            return jax.vmap(value)(points), bends

        return {name: of(fn, known.split()) for name, (fn, known) in KNOWN.items()}

    curves = jax.tree.map(np.asarray, jax.jit(curves)(LOW, HIGH, np.float32(2.0)))
    points = np.random.default_rng(0).uniform(LOW, HIGH, (300, 2))
    with jax.enable_x64(True):
        return curves, jax.tree.map(np.asarray, jax.jit(derivatives, compiler_options=QUICK)(points, 2.0))


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_of_simple_functions(found, name):
    curves, derivatives = found
    known = [what for what in WHATS if np.all(curves[name][what])]
    assert known == KNOWN[name][1].split()
    values, bends = derivatives[name]
    assert (values >= curves[name]["low"] - 1e-5).all()
    assert (values <= curves[name]["high"] + 1e-5).all()
    for what, bend in zip(known, bends, strict=True):
        assert (np.linalg.eigvalsh(-bend if "concave" in what else bend) >= -1e-9).all()


SCALAR = [
    law for law in jl.laws.values() if not law.output_shape and not any(v.shape for v in jl.variables(law.inputs))
]


# Laws that are not convex in the logs of their inputs, or not known to be.
BENT = {"broken_power", "data_constrained_overfit", "distillation", "farseer", "moe_onset", "quantization"}
BENT |= {"easy_question", "lr_bsz", "rectified_sft", "routed", "sft_saturated", "task_error", "vocab", "vocabulary"}


@pytest.mark.parametrize("law", SCALAR, ids=lambda law: law.name)
def test_laws_are_convex_in_log_inputs_where_that_is_claimed(law):
    """With coefficients of all signs; and with those that are published, it is claimed."""
    rng = np.random.default_rng(0)
    group = next(iter(law.groups.values()), None) or law.golden[0][0]
    n = len(jl.variables(law.inputs))
    factors = lambda: [*rng.choice([1.0, -1.0, 0.5, 0], 40), *rng.choice([0.5, 1.0, 2.0], 20)]  # noqa: E731
    signs = jax.tree.map(lambda c: c * np.array([1.0, *factors()]), group)  # the first are those that are published
    low, high = np.full(n, 1.0), np.full(n, 20.0)

    def value(x, c):
        return law.fn(
            c, law.inputs(**{v.name: jnp.exp(each) for v, each in zip(jl.variables(law.inputs), x, strict=True)})
        )

    def both(c, points):
        return jnp.asarray(curve(value, low, high, c).convex), jax.vmap(lambda x: jax.hessian(value)(x, c))(points)

    points = rng.uniform(1, 20, (40, n))
    with jax.enable_x64(True):
        known, bends = jax.jit(jax.vmap(both, (0, None)), compiler_options=QUICK)(signs, points)
    known, bends = np.asarray(known), np.asarray(bends)
    assert known[0] == (law.name not in BENT)
    known, bends = known[1:], bends[1:]
    assert known.sum() < 60
    known = known & np.isfinite(bends).all((1, 2, 3))  # some laws divide by a coefficient
    assert known.any() or law.name in BENT
    least = np.linalg.eigvalsh(bends[known]).min((1, 2)) / (abs(bends[known]).max((1, 2, 3)) + 1e-300)
    assert (least >= -1e-9).all()
