"""Loss of a model trained on several passes over its tokens, each of which is worth less than the one before."""

from math import inf

import jax.numpy as jnp

from jaxlaws.catalogue.chinchilla import Outputs
from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import log, power, worn


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var(
        "parameters, embeddings included", unit="parameters", range=(7.1e6, 8.67e9), aliases=("num_params", "N")
    )
    tokens: Scalar = var(
        "training tokens, repeats included", unit="tokens", range=(1e8, 9e11), aliases=("num_tokens", "D")
    )
    unique_tokens: Scalar = var("distinct tokens", unit="tokens", range=(1e8, 1.78e11), aliases=("U",))


@record
class Coefs:
    """Coefficients of the law."""

    E: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    A: Scalar = var("weight of params", unit="nat/token", bounds=(0, 1e100), start=(50, 5e3))
    B: Scalar = var("weight of tokens", unit="nat/token", bounds=(0, 1e100), start=(50, 5e4))
    alpha: Scalar = var("exponent of params", bounds=(0, 10), start=(0.1, 0.8))
    beta: Scalar = var("exponent of tokens", bounds=(0, 10), start=(0.1, 0.8))
    R_D: Scalar = var("repeats after which tokens are worth little", bounds=(0.1, 1e4), start=(1, 50))
    R_N: Scalar = var("the same for parameters beyond what the tokens need", bounds=(0.1, 1e4), start=(1, 50))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    unique = jnp.minimum(x.tokens, x.unique_tokens)
    # As many parameters as are best for the distinct tokens: alpha A / params**alpha is beta B / tokens**beta there.
    needed = jnp.exp(log(c.alpha * c.A / (c.beta * c.B)) / c.alpha) * power(unique, c.beta / c.alpha)
    params, tokens = worn(x.params, needed, c.R_N), worn(x.tokens, unique, c.R_D)
    return c.E + c.A * power(params, -c.alpha) + c.B * power(tokens, -c.beta)


LAW = Law(
    title="loss on repeated data, as less new data",
    question="What do repeated data still give?",
    advice=(
        "For a few passes over the data. Tokens are worth less with each pass, but never harm: it does not know "
        "overfitting, and parameters beyond what the tokens need count less too."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        # Published as logarithms of E, A and B: .6254804, 6.255414, 7.3049974.
        "c4": Coefs(
            E=1.8691436784054856,
            A=520.8249516599186,
            B=1487.7160937828603,
            alpha=0.3526596,
            beta=0.3526596,
            R_D=15.387756,
            R_N=5.309743,
        )
    },
    objective="huber_log",
    falls_with=("params", "tokens"),
    formula="E"
    " + A*(minimum(params, NEED) + minimum(params, NEED)*R_N*(1 - exp((1 - params/minimum(params, NEED))/R_N)))**-alpha"
    " + B*(minimum(tokens, unique_tokens) + minimum(tokens, unique_tokens)*R_D"
    "*(1 - exp((1 - tokens/minimum(tokens, unique_tokens))/R_D)))**-beta".replace(
        "NEED", "exp(log(alpha*A/(beta*B))/alpha)*minimum(tokens, unique_tokens)**(beta/alpha)"
    ),
    source=Source(
        reference="Muennighoff et al. 2023, arXiv:2305.16264",
        evidence=(
            "from the authors' repository. The split that its text uses, 6.34e9 parameters on 2.42e11 tokens of "
            "2.5e10, is not the best of the law, 6.8e9 on 2.27e11, whose loss is lower by 0.0006"
        ),
    ),
    ranges={None: {"tokens/params": None}},
    golden=(
        ("c4", {"params": 6.34e9, "tokens": 242e9, "unique_tokens": 25e9}, {"loss": 2.2256440889984477}),
        ("c4", {"params": 8.67e9, "tokens": 178e9, "unique_tokens": 25e9}, {"loss": 2.2269634075087863}),
    ),
)
