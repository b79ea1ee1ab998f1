"""The best learning rate, batch size, model and tokens for an amount of compute."""

from math import inf

import jax.numpy as jnp

from jaxlaws.law import Law, Scalar, Source, Vector, record, var
from jaxlaws.numerics import power


@record
class Inputs:
    """Inputs of the law."""

    compute: Scalar = var(
        "FLOP of training, without embeddings: flop_per_token times tokens",
        unit="FLOP",
        range=(1e17, 2e19),
        aliases=("C",),
    )


@record
class Coefs:
    """Coefficients of the law."""

    lr_scale: Scalar = var("scale of the learning rate", bounds=(0, inf))
    lr_exponent: Scalar = var("exponent of compute in the learning rate", bounds=(-10, 10), start=(-1, 0))
    batch_scale: Scalar = var("scale of the batch size", unit="tokens", bounds=(0, inf))
    batch_exponent: Scalar = var("exponent of compute in the batch size", bounds=(-10, 10), start=(0, 1))
    model_scale: Scalar = var("scale of the model", unit="FLOP/token", bounds=(0, inf))
    model_exponent: Scalar = var("exponent of compute in the model", bounds=(-10, 10), start=(0, 1))
    data_scale: Scalar = var("scale of the tokens", unit="tokens", bounds=(0, inf))
    data_exponent: Scalar = var("exponent of compute in the tokens", bounds=(-10, 10), start=(0, 1))


@record
class Outputs:
    """Outputs of the law."""

    learning_rate: Scalar = var("best peak learning rate")
    batch_size: Scalar = var("best batch size", unit="tokens")
    flop_per_token: Scalar = var("best model, in FLOP of training per token without embeddings", unit="FLOP/token")
    tokens: Scalar = var("best number of training tokens", unit="tokens")


def optimum(c: Coefs, x: Inputs) -> Vector:
    """The best settings for one amount of compute."""
    return jnp.stack(
        [
            c.lr_scale * power(x.compute, c.lr_exponent),
            c.batch_scale * power(x.compute, c.batch_exponent),
            c.model_scale * power(x.compute, c.model_exponent),
            c.data_scale * power(x.compute, c.data_exponent),
        ]
    )


LAW = Law(
    title="best learning rate, batch size, model and tokens",
    question="Which learning rate and batch size?",
    advice=(
        "For a first guess from compute alone, where size and tokens are at their best for it. The size of the model "
        "is in FLOP per token, six times its parameters and what attention costs, and the data are of one high "
        "quality."
    ),
    fn=optimum,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "deepseek": Coefs(
            lr_scale=0.3118,
            lr_exponent=-0.1250,
            batch_scale=0.2920,
            batch_exponent=0.3271,
            model_scale=0.1715,
            model_exponent=0.5243,
            data_scale=5.8316,
            data_exponent=0.4757,
        )
    },
    objective="relative",
    formula="(lr_scale*compute**lr_exponent, batch_scale*compute**batch_exponent, "
    "model_scale*compute**model_exponent, data_scale*compute**data_exponent)",
    source=Source(
        reference="DeepSeek-AI 2024, arXiv:2401.02954, equations 1 and 4",
        evidence="printed digits, from the text of the paper; model and tokens were fitted on up to 3e20 FLOP",
    ),
    golden=(
        (
            "deepseek",
            {"compute": 1e20},
            {
                "learning_rate": 0.0009859981744405008,
                "batch_size": 1017144.9599051544,
                "flop_per_token": 5251267288.779511,
                "tokens": 19045296020.961937,
            },
        ),
    ),
)
