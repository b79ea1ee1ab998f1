"""Loss of a model that runs several parallel streams over each input, as if it had more parameters."""

from math import inf

from jaxlaws.catalogue.parallel import Outputs
from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import at_least, log, power


@record
class Inputs:
    """Inputs of the law."""

    num_params: Scalar = var(
        "parameters without embeddings", unit="parameters", range=(535813376, 4414502408), aliases=("params", "N")
    )
    parallel_size: Scalar = var("parallel streams", range=(1, 8), floor=1.0, integer=True, aliases=("P",))


@record
class Coefs:
    """Coefficients of the law."""

    E: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    A: Scalar = var("scale of num_params", unit="parameters", bounds=(0, 1e100), start=(1e6, 1e10))
    alpha: Scalar = var("exponent of num_params", bounds=(0, 10), start=(0.05, 0.6))
    k: Scalar = var("gain of the streams", bounds=(0, 100), start=(0.05, 1))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    streams = c.k * log(at_least(x.parallel_size, 1.0)) + 1
    return c.E + power(c.A / (x.num_params * streams), c.alpha)


LAW = Law(
    title="loss with parallel streams, as more parameters",
    question="How many parallel streams?",
    advice=(
        "For streams as a way to more parameters: P of them are worth k log P + 1 times the parameters, without a "
        "bound. Fitted to up to 8 streams; says nothing about tokens."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "stack": Coefs(E=0.69123678, A=1.130616e7, alpha=0.18937067, k=0.393463),
        "pile": Coefs(E=1.28876563, A=1.9735203e8, alpha=0.19633308, k=0.33445557),
    },
    falls_with=("num_params", "parallel_size"),
    formula="E + (A/(num_params*(k*log(parallel_size) + 1)))**alpha",
    objective="huber_log",
    source=Source(
        reference="Chen et al. 2025, arXiv:2505.10475",
        evidence="from the authors' repository",
    ),
    golden=(
        ("stack", {"num_params": 1e9, "parallel_size": 8}, {"loss": 1.0733457409164455}),
        ("pile", {"num_params": 1e9, "parallel_size": 8}, {"loss": 1.9443292358958293}),
    ),
)
