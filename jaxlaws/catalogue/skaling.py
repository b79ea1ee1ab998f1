"""Loss of a dense language model from its parameters and tokens, whose effects need not add up."""

from math import inf

from jaxlaws.catalogue.chinchilla import Outputs
from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import power


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var(
        "parameters, without embeddings", unit="parameters", range=(1.43e8, 1.26e10), aliases=("num_params", "N")
    )
    tokens: Scalar = var("training tokens", unit="tokens", range=(4e9, 5.12e11), aliases=("num_tokens", "D"))


@record
class Coefs:
    """Coefficients of the law."""

    E: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    A: Scalar = var("weight of params", bounds=(0, 1e100), start=(1e2, 1e5))
    B: Scalar = var("weight of tokens", bounds=(0, 1e100), start=(1e2, 1e5))
    alpha: Scalar = var("exponent of params", bounds=(0, 10), start=(0.1, 1))
    beta: Scalar = var("exponent of tokens", bounds=(0, 10), start=(0.1, 1))
    k: Scalar = var("exponent of the sum", bounds=(0, 10), start=(0.2, 1.5))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    return c.E + power(c.A * power(x.params, -c.alpha) + c.B * power(x.tokens, -c.beta), c.k)


LAW = Law(
    title="loss from parameters and tokens, with a power of the sum",
    question="How large a model, on how many tokens?",
    advice=(
        "Where chinchilla leaves a pattern in the errors of your runs: a scarcity of parameters and one of tokens "
        "then add up to less than their sum. It is chinchilla for k = 1, and takes more runs to fit. Runs hardly tell "
        "E from k: it is no bound of what larger models can reach."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={"busbridge2025": Coefs(E=1.220, A=3355.0, B=18186.0, alpha=0.408, beta=0.431, k=0.452)},
    objective="huber_log",
    falls_with=("params", "tokens"),
    formula="E + (A*params**-alpha + B*tokens**-beta)**k",
    source=Source(reference="Videau et al. 2026, arXiv:2608.07222", evidence="the form"),
    sources={
        "busbridge2025": Source(
            reference="Busbridge et al. 2025, arXiv:2502.08606, equation 1 and table 6",
            evidence=(
                "printed digits, from the text of the paper: 73 runs. Standard errors are its intervals of 90 % over "
                "3.29; without a covariance, they give no interval of the loss"
            ),
            stderr=Coefs(E=0.017, A=4.3, B=24.0, alpha=0.0018, beta=0.0015, k=0.0058),
        )
    },
    ranges={None: {"tokens/params": None}},
    golden=(("busbridge2025", {"params": 1e9, "tokens": 2e10}, {"loss": 2.3746922483534956}),),
)
