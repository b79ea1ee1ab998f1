"""Loss of a model that runs several parallel streams over each input, whose gain goes with the root of their number."""

import dataclasses
from math import inf

from jaxlaws.catalogue.parallel import FLOOR, Inputs, Outputs
from jaxlaws.law import Law, Scalar, Source, mean, record, var
from jaxlaws.numerics import at_least, power


@record
class Coefs:
    """Coefficients of the law."""

    E: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    A: Scalar = var("weight of the model size", unit="nat/token", bounds=(0, inf))
    B: Scalar = var("weight of the streams", unit="nat/token", bounds=(0, inf))
    C: Scalar = var("weight of size and streams together", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of num_params", shared=True, bounds=(0, 10), start=(0.1, 0.6))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    size = power(at_least(x.num_params, FLOOR) / 1e9, -c.alpha)
    return c.E + c.A * size + (c.B + c.C * size) * power(at_least(x.parallel_size, FLOOR), -0.5)


ALPHA = 0.260635588766543
SOURCE = Source(
    reference="form chosen and fitted here, on the training runs of SLDBench (Lin et al. 2025, arXiv:2507.21184)",
    evidence=(
        "fitted with this package to 36 runs. Without those of 4 streams, R2 on these is 0.99998, and those of 1 and 2 "
        "do not tell the coefficients of parallel"
    ),
)

LAW = Law(
    title="loss with parallel streams, by their root",
    question="How many parallel streams?",
    advice=(
        "As parallel with fewer coefficients, and better at 4 streams from runs of 1 and 2. Says nothing about tokens."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "pile": Coefs(
            E=1.3971523563981234, A=0.5139086696093331, B=0.07960348759077167, C=0.024017360347044586, alpha=ALPHA
        ),
        "stack": Coefs(
            E=0.7642130090960518, A=0.2857685928351621, B=0.04501076891964158, C=0.02297312616611188, alpha=ALPHA
        ),
    },
    fallback=mean,
    falls_with=("num_params", "parallel_size"),
    formula="E + A*(num_params/1e9)**-alpha + (B + C*(num_params/1e9)**-alpha)*parallel_size**-0.5",
    source=SOURCE,
    sources={
        "pile": dataclasses.replace(
            SOURCE,
            covariance=(
                (0.0005940531,),
                (
                    -0.0006040632,
                    0.00061677,
                ),
                (
                    -5.653227e-05,
                    5.932698e-05,
                    0.0001149133,
                ),
                (
                    5.907039e-05,
                    -6.512076e-05,
                    -0.0001192351,
                    0.000127991,
                ),
                (
                    0.000297324,
                    -0.0003015351,
                    1.521479e-05,
                    -1.557483e-05,
                    0.0001674898,
                ),
            ),
        ),
        "stack": dataclasses.replace(
            SOURCE,
            covariance=(
                (0.0002294301,),
                (
                    -0.0002342746,
                    0.0002417426,
                ),
                (
                    -6.966325e-05,
                    7.264406e-05,
                    0.0001147114,
                ),
                (
                    7.256081e-05,
                    -7.880237e-05,
                    -0.0001190243,
                    0.000127771,
                ),
                (
                    0.0001653206,
                    -0.0001676608,
                    1.406005e-05,
                    -1.434342e-05,
                    0.0001674898,
                ),
            ),
        ),
    },
    golden=(
        ("pile", {"num_params": 1000000000.0, "parallel_size": 8}, {"loss": 1.9476965281320215}),
        ("stack", {"num_params": 1000000000.0, "parallel_size": 8}, {"loss": 1.0740175385445194}),
    ),
)
