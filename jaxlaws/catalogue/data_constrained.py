"""Loss of a model trained on several passes over a limited number of unique tokens."""

from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import at_least, positive_or, power

FLOOR = 1e-18  # stands in for a base that is not positive
FLOOR_UNIQUE = 1.0


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var("parameters", unit="parameters", range=(7098752, 3899710720), floor=FLOOR, missing=0.0)
    tokens: Scalar = var(
        "training tokens, repeats included", unit="tokens", range=(1e8, 3e11), floor=FLOOR, missing=0.0
    )
    unique_tokens: Scalar = var("distinct tokens", unit="tokens", range=(1e8, 1.74e11), floor=FLOOR_UNIQUE, missing=1.0)


@record
class Coefs:
    """Coefficients of the law."""

    d: Scalar = var("constant", unit="nat/token")
    a: Scalar = var("weight of params", unit="nat/token")
    b: Scalar = var("weight of tokens", unit="nat/token")
    c: Scalar = var("weight of unique_tokens", unit="nat/token")
    e: Scalar = var("weight of the passes over the data", unit="nat/token")
    alpha: Scalar = var("exponent of params", shared=True, bounds=(1e-3, 10))
    beta: Scalar = var("exponent of tokens", shared=True, bounds=(1e-3, 10))
    gamma: Scalar = var("exponent of unique_tokens", shared=True, bounds=(1e-3, 10))
    delta: Scalar = var("exponent of the passes", shared=True, bounds=(1e-3, 10))


@record
class Outputs:
    """Outputs of the law."""

    loss: Scalar = var("validation loss", unit="nat/token")


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    unique = at_least(x.unique_tokens, FLOOR_UNIQUE)
    return (
        c.d
        + c.a * power(positive_or(x.params, FLOOR), -c.alpha)
        + c.b * power(positive_or(x.tokens, FLOOR), -c.beta)
        + c.c * power(positive_or(unique, FLOOR), -c.gamma)
        + c.e * power(positive_or(x.tokens / unique, FLOOR), -c.delta)
    )


LAW = Law(
    title="loss on repeated data",
    question="What do repeated data still give?",
    advice=(
        "For a few passes over the data, as its source predicts them. It never turns upwards: it does not know "
        "overfitting."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "all_data": Coefs(
            d=-1.48205727,
            a=19102.5244,
            b=187355.582,
            c=10.8182446,
            e=0.385869099,
            alpha=0.5905144353732534,
            beta=0.6010038076798887,
            gamma=0.04387501406139306,
            delta=0.9108617183578192,
        ),
    },
    fallback=lambda groups: groups["all_data"],
    falls_with=("params", "tokens"),
    formula="d + a*params**-alpha + b*tokens**-beta + c*unique_tokens**-gamma + e*(tokens/unique_tokens)**-delta",
    source=Source(
        reference="SLDBench leaderboard (Lin et al. 2025, arXiv:2507.21184)",
        evidence="in full precision from the published program, with which this law agrees to 1e-12",
        task="Data-Constrained Scaling Law",
        agent="openhands",
        model="GPT-5",
        r2_best=0.978110,
        r2_mean=0.917345,
        r2_min=0.862997,
        runs=4,
    ),
    ranges={None: {"tokens/params": (0.0912, 12341)}},
    golden=(
        (
            "all_data",
            {"params": 2810000000.0, "tokens": 40000000000.0, "unique_tokens": 4000000000.0},
            {"loss": 2.7959675621217546},
        ),
        (
            "all_data",
            {"params": 3899710720, "tokens": 300000000000.0, "unique_tokens": 174000000000.0},
            {"loss": 2.2932133629545266},
        ),
    ),
)
