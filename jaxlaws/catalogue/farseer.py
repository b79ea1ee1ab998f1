"""Loss of a dense language model from its parameters and tokens, whose exponent depends on the parameters."""

import jax.numpy as jnp

from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import log, power


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var(
        "parameters, without embeddings",
        unit="parameters",
        range=(9.9620352e7, 6.369572352e9),
        aliases=("num_params", "N"),
    )
    tokens: Scalar = var("training tokens", unit="tokens", range=(9.9999744e8, 5.11998e11), aliases=("num_tokens", "D"))


@record
class Coefs:
    """Coefficients of the law."""

    s: Scalar = var("weight of params in the loss at infinite tokens", bounds=(-1e100, 0), start=(-1, -0.01))
    q: Scalar = var("exponent of params in the loss at infinite tokens", bounds=(0.02, 1), start=(0.05, 0.3))
    S: Scalar = var("offset of the loss at infinite tokens", bounds=(-100, 100), start=(-1, 1))
    B: Scalar = var("weight of params in the weight of tokens", bounds=(0, 1e100), start=(10, 1000))
    b: Scalar = var("exponent of params in the weight of tokens", bounds=(-1, -0.02), start=(-0.3, -0.05))
    Q: Scalar = var("offset of the weight of tokens", bounds=(-100, 100), start=(-3, 3))
    A: Scalar = var("weight of params in the exponent of tokens", bounds=(-1e100, 0), start=(-10, -0.1))
    a: Scalar = var("exponent of params in the exponent of tokens", bounds=(0.02, 1), start=(0.02, 0.2))
    E: Scalar = var("offset of the exponent of tokens", bounds=(-100, 100), start=(0, 5))


@record
class Outputs:
    """Outputs of the law."""

    loss: Scalar = var("loss", unit="bit/character")


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    exponent = jnp.exp(c.A * power(x.params, c.a) + c.E)
    scarcity = jnp.exp(c.B * power(x.params, c.b) + c.Q - exponent * log(x.tokens))
    return jnp.exp(c.s * power(x.params, c.q) + c.S) + scarcity


LAW = Law(
    title="loss from parameters and tokens, not separable",
    question="How large a model, on how many tokens?",
    advice=(
        "Where chinchilla is not close enough on runs like its own: data go on helping large models for longer. Nine "
        "coefficients take many runs to fit, and tell nothing far beyond them: the loss goes to 0, and an allocation "
        "that is not kept in their range runs away from it."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "all_data": Coefs(
            s=-0.062465473,
            q=0.13,
            S=0.1284880679442551,
            B=230.73437075885855,
            b=-0.1729,
            Q=-1.544209554,
            A=-1.665630816,
            a=0.0458999999999619,
            E=3.133347198805445,
        )
    },
    decades=3,
    falls_with=("params", "tokens"),
    formula="exp(s*params**q + S) + exp(B*params**b + Q - exp(A*params**a + E)*log(tokens))",
    source=Source(
        reference="Li et al. 2025, arXiv:2506.10972",
        evidence=(
            "from the code of a benchmark (PlanarG/active-sl), which says that they are those of the paper and its "
            "notebook; R2 0.99873 on the authors' 404 runs"
        ),
    ),
    ranges={None: {"tokens/params": (0.3139, 2570)}},
    golden=(("all_data", {"params": 1e9, "tokens": 2e10}, {"loss": 0.539408643928975}),),
)
