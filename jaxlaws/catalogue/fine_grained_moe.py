"""Loss of a mixture of experts from its parameters, its tokens, and how finely the experts are cut."""

from math import inf

from jaxlaws.catalogue.chinchilla import Outputs
from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import power


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var(
        "parameters, all experts included, without embeddings",
        unit="parameters",
        range=(1.29e8, 3.7e9),
        aliases=("num_params", "N"),
    )
    tokens: Scalar = var("training tokens", unit="tokens", range=(1.6e10, 1.3e11), aliases=("num_tokens", "D"))
    granularity: Scalar = var(
        "width of the feed-forward layer over that of an expert", range=(1, 16), bounds=(1, inf), aliases=("G",)
    )


@record
class Coefs:
    """Coefficients of the law."""

    c: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    a: Scalar = var("weight of params", unit="nat/token", bounds=(0, inf))
    b: Scalar = var("weight of tokens", unit="nat/token", bounds=(0, inf))
    g: Scalar = var("weight of granularity", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of params", bounds=(0, 10), start=(0.05, 0.5))
    beta: Scalar = var("exponent of tokens", bounds=(0, 10), start=(0.05, 0.5))
    gamma: Scalar = var("exponent of granularity", bounds=(0, 10), start=(0.1, 1.5))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    weight = c.a + c.g * power(x.granularity, -c.gamma)
    return c.c + weight * power(x.params, -c.alpha) + c.b * power(x.tokens, -c.beta)


LAW = Law(
    title="loss of a mixture of fine-grained experts",
    question="How many experts?",
    advice=(
        "For into how many small experts to cut large ones, with 64 times the feed-forward layers that a token meets. "
        "Finer is always better to it: what routing costs, which grows with granularity, is in the cost fine_grained."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "moe": Coefs(c=0.47, a=18.1, b=30.8, g=2.1, alpha=0.115, beta=0.147, gamma=0.58),
        # The dense model of the same publication, without experts: granularity changes nothing.
        "dense": Coefs(c=0.47, a=16.3, b=26.7, g=0.0, alpha=0.126, beta=0.127, gamma=0.58),
    },
    objective="huber_log",
    falls_with=("params", "tokens"),
    formula="c + (g*granularity**-gamma + a)*params**-alpha + b*tokens**-beta",
    source=Source(
        reference="Krajewski et al. 2024, arXiv:2402.07871, table 1",
        evidence=(
            "printed digits, from the text of the paper; RMSE 0.015. They are few: its table 2 has the same best "
            "granularities, sizes and tokens to 3 %, and losses that are higher by 0.011 to 0.024. The dense models "
            "had 3e6 to 8.5e7 parameters"
        ),
    ),
    ranges={None: {"tokens/params": None}, "dense": {"params": (3e6, 8.5e7)}},
    golden=(
        ("moe", {"params": 1e9, "tokens": 2e10, "granularity": 8}, {"loss": 3.140393115994835}),
        ("dense", {"params": 1e9, "tokens": 2e10, "granularity": 1}, {"loss": 2.980305149755157}),
    ),
)
