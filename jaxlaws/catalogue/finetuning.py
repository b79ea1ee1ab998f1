"""Loss after fine-tuning, from the examples and one other thing that is scaled with them."""

from math import inf

from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import power


@record
class Inputs:
    """Inputs of the law."""

    scale: Scalar = var(
        "what is scaled: parameters of the model, tokens of its pre-training, or parameters that are tuned",
        unit="parameters or tokens",
        aliases=("X",),
    )
    finetuning_tokens: Scalar = var("tokens of fine-tuning", unit="tokens", aliases=("D_f",))


@record
class Coefs:
    """Coefficients of the law."""

    E: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    A: Scalar = var("weight of scale and tokens", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of scale", bounds=(0, 10), start=(0, 0.5))
    beta: Scalar = var("exponent of finetuning_tokens", bounds=(0, 10), start=(0, 0.5))


@record
class Outputs:
    """Outputs of the law."""

    loss: Scalar = var("loss after fine-tuning", unit="nat/token")


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    return c.E + c.A * power(x.scale, -c.alpha) * power(x.finetuning_tokens, -c.beta)


LAW = Law(
    title="loss after fine-tuning, times a power of a scale",
    question="How many examples for fine-tuning?",
    advice=(
        "After fitting it to runs of your own, for one task and one way of fine-tuning: whether a larger model, more "
        "pre-training or more tuned parameters saves examples. The gains multiply; it knows no point from which on "
        "tuning sets in."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    objective="huber_log",
    falls_with=("scale", "finetuning_tokens"),
    formula="E + A*scale**-alpha*finetuning_tokens**-beta",
    source=Source(reference="Zhang et al. 2024, arXiv:2402.17193", evidence="the form alone"),
    golden=(
        (
            Coefs(E=1.2, A=30.0, alpha=0.1, beta=0.05),
            {"scale": 1e9, "finetuning_tokens": 1e6},
            {"loss": 3.09287203344058},
        ),
    ),
)
