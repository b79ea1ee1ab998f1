"""Loss of a mixture-of-experts model from its dense size and its number of experts."""

from math import inf

from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import at_least, power

FLOOR = 1.0


@record
class Inputs:
    """Inputs of the law."""

    dense_parameter_count: Scalar = var(
        "parameters of the dense model that the experts are added to",
        unit="parameters",
        range=(16527360, 368123904),
        floor=FLOOR,
        missing=0.0,
    )
    num_experts: Scalar = var(
        "experts per layer", unit="experts", range=(1, 512), floor=FLOOR, missing=0.0, integer=True
    )


@record
class Coefs:
    """Coefficients of the law."""

    L_inf: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    K: Scalar = var("weight of the power law", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of dense_parameter_count", bounds=(0, 10))
    beta: Scalar = var("exponent of num_experts", bounds=(0, 10))


@record
class Outputs:
    """Outputs of the law."""

    loss_validation: Scalar = var("validation loss", unit="nat/token")


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    size = power(at_least(x.dense_parameter_count, FLOOR), -c.alpha)
    experts = power(at_least(x.num_experts, FLOOR), -c.beta)
    return c.L_inf + c.K * size * experts


LAW = Law(
    title="loss of a mixture of experts",
    question="How many experts?",
    advice=(
        "A quick estimate from the sizes of the dense model and the number of experts. It keeps falling with the "
        "experts, and knows no tokens."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "all_data": Coefs(
            L_inf=1.6170181475797127, K=43.475711011953884, alpha=0.19898568476505754, beta=0.07398277097857449
        ),
    },
    fallback=lambda groups: groups["all_data"],
    falls_with=("dense_parameter_count", "num_experts"),
    formula="L_inf + K*dense_parameter_count**-alpha*num_experts**-beta",
    source=Source(
        reference="SLDBench leaderboard (Lin et al. 2025, arXiv:2507.21184)",
        evidence="in full precision from the published program, with which this law agrees to 1e-12",
        task="MoE Scaling Law",
        agent="opencode",
        model="GPT-5",
        r2_best=0.832695,
        r2_mean=0.239853,
        r2_min=-0.220339,
        runs=5,
    ),
    golden=(
        (
            "all_data",
            {"dense_parameter_count": 132163584.0, "num_experts": 32},
            {"loss_validation": 2.4315471135295907},
        ),
        ("all_data", {"dense_parameter_count": 368123904, "num_experts": 512}, {"loss_validation": 2.158142661438425}),
    ),
)
