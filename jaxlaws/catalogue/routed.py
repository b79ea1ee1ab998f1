"""Loss of a routed language model from its dense parameters and its experts, after a fixed number of tokens."""

from math import log as ln

import jax.numpy as jnp

from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import log

TEN = ln(10)


@record
class Inputs:
    """Inputs of the law. All runs had 130 billion tokens."""

    params: Scalar = var(
        "parameters of the dense model", unit="parameters", range=(1.5e7, 1.3e9), aliases=("num_params", "N")
    )
    num_experts: Scalar = var("experts", unit="experts", range=(1, 512), integer=True, aliases=("E",))


@record
class Coefs:
    """Coefficients of the law, which is in base-10 logarithms."""

    a: Scalar = var("exponent of params", bounds=(-10, 10), start=(-0.2, 0))
    b: Scalar = var("exponent of experts", bounds=(-10, 10), start=(-0.3, 0))
    c: Scalar = var("change of both exponents with the log10 of the other")
    d: Scalar = var("log10 of the loss of one parameter", unit="log10(nat/token)")
    E_start: Scalar = var("experts that begin to count", unit="experts", bounds=(1, 20), start=(1, 10))
    E_max: Scalar = var("experts that count at most", unit="experts", bounds=(30, 1e6), start=(100, 1000))


@record
class Outputs:
    """Outputs of the law."""

    loss: Scalar = var("validation loss", unit="nat/token")


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    beyond = x.num_experts - 1 + 1 / (1 / c.E_start - 1 / c.E_max)
    log_size, log_experts = log(x.params) / TEN, -log(1 / beyond + 1 / c.E_max) / TEN
    return jnp.exp(TEN * (c.a * log_size + c.b * log_experts + c.c * log_size * log_experts + c.d))


LAW = Law(
    title="loss of a routed model, level at many experts",
    question="How many experts?",
    advice=(
        "For how much experts gain at a given size of the dense model, with one group per way of routing: take those "
        "that were fitted again, as the printed digits are too few. The gain ends at E_max experts and shrinks with "
        "size to nothing at 10**(-b/c) parameters, about 1e11 to 9e11, beyond which more experts raise the loss that "
        "it predicts. All runs had 130 billion tokens: it knows no others."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "s_base_refit": Coefs(a=-0.0824, b=-0.1124, c=0.0094, d=1.1066, E_start=1.840, E_max=292.2),
        "rl_r_refit": Coefs(a=-0.0827, b=-0.1245, c=0.0113, d=1.1072, E_start=1.691, E_max=407.8),
        "hash_refit": Coefs(a=-0.0849, b=-0.1234, c=0.0113, d=1.1323, E_start=2.750, E_max=529.5),
        "s_base": Coefs(a=-0.082, b=-0.108, c=0.009, d=1.104, E_start=1.847, E_max=314.478),
        "rl_r": Coefs(a=-0.083, b=-0.126, c=0.012, d=1.111, E_start=1.880, E_max=469.982),
        "hash": Coefs(a=-0.087, b=-0.136, c=0.012, d=1.157, E_start=4.175, E_max=477.741),
    },
    objective="relative",
    falls_with=("params", "num_experts"),
    formula="exp(a*log(params) - b*log(1/(num_experts - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max)"
    " - c*log(params)*log(1/(num_experts - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max)/log(10) + d*log(10))",
    source=Source(
        reference="Clark et al. 2022, arXiv:2202.01169, table 3",
        evidence=(
            "printed digits, from secondary sources that agree. They are too few: gains end at 1e12, 3.2e10 and 2.2e11 "
            "parameters (s_base, rl_r, hash), where the paper says 9.37e11, 8.5e10 and 8.3e10, and the losses of the "
            "authors' runs with rl_r are 1.5 % too high"
        ),
    ),
    sources=dict.fromkeys(
        ("s_base_refit", "rl_r_refit", "hash_refit"),
        Source(
            reference="form of Clark et al. 2022, arXiv:2202.01169",
            evidence=(
                "fitted again to the authors' curves, R2 of the logarithm 0.996; four digits are kept. Gains end at "
                "9.1e11, 1.04e11 and 8.3e10 parameters"
            ),
        ),
    ),
    golden=(("s_base", {"params": 1e8, "num_experts": 64}, {"loss": 2.430529777676598}),),
)
