"""The best learning rate and batch size of a dense language model, from its parameters and tokens."""

from math import inf

import jax.numpy as jnp

from jaxlaws.law import Law, Scalar, Source, Vector, record, var
from jaxlaws.numerics import power


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var(
        "parameters, without embeddings",
        unit="parameters",
        range=(59968512, 1073741824),
        aliases=("num_params", "non_embedding_param_size", "N"),
    )
    tokens: Scalar = var("training tokens", unit="tokens", range=(2e9, 1e11), aliases=("num_tokens", "data_size", "D"))


@record
class Coefs:
    """Coefficients of the law."""

    c: Scalar = var("scale of the learning rate", bounds=(0, inf))
    alpha: Scalar = var("exponent of params in the learning rate", bounds=(-2, 0), start=(-1.5, 0))
    beta: Scalar = var("exponent of tokens in the learning rate", bounds=(-1, 2), start=(0, 1))
    d: Scalar = var("scale of the batch size", unit="tokens", bounds=(0, inf))
    gamma: Scalar = var("exponent of tokens in the batch size", bounds=(0, 2), start=(0, 1))


@record
class Outputs:
    """Outputs of the law."""

    learning_rate: Scalar = var("best peak learning rate")
    batch_size: Scalar = var("best batch size", unit="tokens")


def optimum(c: Coefs, x: Inputs) -> Vector:
    """The best learning rate and batch size of one configuration."""
    learning_rate = c.c * power(x.params, c.alpha) * power(x.tokens, c.beta)
    return jnp.stack([learning_rate, c.d * power(x.tokens, c.gamma)])


LAW = Law(
    title="best learning rate and batch size",
    question="Which learning rate and batch size?",
    advice=(
        "For a dense model trained with AdamW and a cosine that falls to a fixed small rate, from its size and "
        "tokens; dense has the printed digits, and dense_mean more of them, with errors. It gives the place of the "
        "optimum, and not what it costs to miss it: see lr_bsz."
    ),
    fn=optimum,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "dense": Coefs(c=1.79, alpha=-0.713, beta=0.307, d=0.58, gamma=0.571),
        # In the file as logarithms of c and d: .5863077907, -.5435421736.
        "dense_mean": Coefs(
            c=1.7973399939,
            alpha=-0.7129222912,
            beta=0.3074909504,
            d=0.5806877084,
            gamma=0.5709443647,
        ),
    },
    objective="relative",
    formula="(c*params**alpha*tokens**beta, d*tokens**gamma)",
    source=Source(reference="Li et al. 2025, arXiv:2503.04715, table 2", evidence="printed digits, from the paper"),
    sources={
        "dense_mean": Source(
            reference="Li et al. 2025, arXiv:2503.04715, means of the 1,000 fits to runs drawn again in its repository",
            evidence=(
                "means and covariance of the fits in the authors' repository, of c and d those of the logarithms. 95 % "
                "of the fits have alpha in -0.774 to -0.655, beta in 0.271 to 0.345, and gamma in 0.534 to 0.606"
            ),
            logs=("c", "d"),
            covariance=(
                (0.3890621115,),
                (-0.01355893897, 0.0008914857372),
                (-0.005132493532, -0.0001743317885, 0.0003663118429),
                (0.03838577451, 0.0001884105041, -0.0018404546, 0.1911796359),
                (-0.00169407104, -7.416720025e-06, 8.058960726e-05, -0.008151572248, 0.0003485179395),
            ),
        )
    },
    golden=(
        (
            "dense",
            {"params": 7e9, "tokens": 1.4e12},
            {"learning_rate": 0.0009165569088563066, "batch_size": 4998815.432671477},
        ),
        (
            "dense_mean",  # published elsewhere as 9.347e-4 and 4.997e6
            {"params": 7e9, "tokens": 1.4e12},
            {"learning_rate": 0.0009346840674643904, "batch_size": 4996961.325373091},
        ),
    ),
)
