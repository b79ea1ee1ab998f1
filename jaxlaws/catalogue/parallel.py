"""Loss of a model that runs several parallel streams over each input."""

from math import inf

from jaxlaws.law import Law, Scalar, Source, mean, record, var
from jaxlaws.numerics import at_least, power

FLOOR = 1e-12


@record
class Inputs:
    """Inputs of the law."""

    num_params: Scalar = var(
        "non-embedding parameters",
        unit="parameters",
        range=(535813376, 4383854084),
        floor=FLOOR,
        aliases=("n_params", "params", "n"),
    )
    parallel_size: Scalar = var(
        "parallel streams",
        range=(1, 4),
        floor=FLOOR,
        integer=True,
        aliases=("p", "degree", "mp_size", "world_size"),
    )


@record
class Coefs:
    """Coefficients of the law."""

    c0: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    c1: Scalar = var("weight of the model size", unit="nat/token", bounds=(0, inf))
    c2: Scalar = var("weight of the streams", unit="nat/token", bounds=(0, inf))
    c3: Scalar = var("weight of size and streams together", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of num_params", shared=True, bounds=(0, 10))
    beta: Scalar = var("exponent of parallel_size", shared=True, bounds=(0, 10), start=(0, 2))


@record
class Outputs:
    """Outputs of the law."""

    loss: Scalar = var("validation loss", unit="nat/token")


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    size = power(at_least(x.num_params, FLOOR), -c.alpha)
    streams = power(at_least(x.parallel_size, FLOOR), -c.beta)
    return c.c0 + c.c1 * size + c.c2 * streams + c.c3 * (size * streams)


ALPHA, BETA = 0.25125, 0.513333333333

LAW = Law(
    title="loss with parallel streams",
    question="How many parallel streams?",
    advice="For streams and sizes as those of its runs, as its source predicts them. Says nothing about tokens.",
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "pile": Coefs(c0=1.38133216084, c1=97.066659052, c2=0.0772792357873, c3=4.4654429466, alpha=ALPHA, beta=BETA),
        "stack": Coefs(
            c0=0.755424951209, c1=54.0083122959, c2=0.0433880237503, c3=4.26602562249, alpha=ALPHA, beta=BETA
        ),
    },
    fallback=mean,
    falls_with=("num_params", "parallel_size"),
    formula="c0 + c1*num_params**-alpha + c2*parallel_size**-beta + c3*num_params**-alpha*parallel_size**-beta",
    source=Source(
        reference="SLDBench leaderboard (Lin et al. 2025, arXiv:2507.21184)",
        evidence="in full precision from the published program, with which this law agrees to 1e-12",
        task="Parallel Scaling Law",
        agent="mini-swe-agent",
        model="GPT-5",
        r2_best=0.999966,
        r2_mean=0.997173,
        r2_min=0.988864,
        runs=5,
    ),
    golden=(
        ("pile", {"num_params": 1000000000.0, "parallel_size": 8}, {"loss": 1.9482097314691535}),
        ("stack", {"num_params": 1000000000.0, "parallel_size": 8}, {"loss": 1.0743289151619602}),
    ),
)
