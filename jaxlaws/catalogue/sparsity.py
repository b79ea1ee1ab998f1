"""Loss of a mixture of experts from its parameters, its tokens, and the share of the experts that a token meets."""

from math import inf

from jaxlaws.catalogue.chinchilla import Outputs
from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import power


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var("parameters, all experts included", unit="parameters", aliases=("num_params", "N"))
    tokens: Scalar = var("training tokens", unit="tokens", aliases=("num_tokens", "D"))
    active_share: Scalar = var(
        "share of the experts that a token meets: one minus the sparsity", range=(0.05, 1), bounds=(0, 1)
    )


@record
class Coefs:
    """Coefficients of the law."""

    e: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    a: Scalar = var("weight of params", unit="nat/token", bounds=(0, inf))
    b: Scalar = var("weight of tokens", unit="nat/token", bounds=(0, inf))
    c: Scalar = var("weight of active_share", unit="nat/token", bounds=(0, inf))
    d: Scalar = var("weight of params and active_share together", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of params", bounds=(0, 10), start=(0.1, 1))
    beta: Scalar = var("exponent of tokens", bounds=(0, 10), start=(0.1, 1))
    lambda_: Scalar = var("exponent of active_share", bounds=(-5, 5), start=(-1, 1))
    delta: Scalar = var("exponent of active_share, with params", bounds=(-5, 5), start=(0, 1))
    gamma: Scalar = var("exponent of params, with active_share", bounds=(0, 10), start=(0, 1))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    dense = c.a * power(x.params, -c.alpha) + c.b * power(x.tokens, -c.beta)
    together = c.d * power(x.active_share, -c.delta) * power(x.params, -c.gamma)
    return dense + c.c * power(x.active_share, -c.lambda_) + together + c.e


LAW = Law(
    title="loss of a mixture of experts, by its sparsity",
    question="How many experts?",
    advice=(
        "For which share of the experts a token should meet, at a given size or a given compute, of which costs take "
        "it to be the share of the parameters. More parameters of which fewer meet a token are always better to it: "
        "give params, or an upper bound."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "table3": Coefs(
            e=0.94,
            a=16612.50,
            b=5455.67,
            c=0.4598,
            d=17.26,
            alpha=0.5962,
            beta=0.3954,
            lambda_=-0.1666,
            delta=0.1603,
            gamma=0.1595,
        )
    },
    objective="huber_log",
    falls_with=("params", "tokens"),
    formula="a*params**-alpha + b*tokens**-beta + c*active_share**-lambda_ + d*active_share**-delta*params**-gamma + e",
    source=Source(
        reference="Abnar et al. 2025, arXiv:2501.12370, table 3",
        evidence=(
            "printed digits, from a secondary source; sizes and tokens of the runs are not among them. Runs of which a "
            "token met 0.02 were held out, with an R2 of 0.68"
        ),
    ),
    ranges={None: {"tokens/params": None}},
    golden=(("table3", {"params": 1e9, "tokens": 2e10, "active_share": 0.1}, {"loss": 2.7018723328176923}),),
)
