"""Loss of a mixture-of-experts model, where the first few experts bring less than those that follow."""

from math import inf

from jaxlaws.catalogue.moe import FLOOR, Inputs, Outputs
from jaxlaws.law import Law, Scalar, Source, mean, record, var
from jaxlaws.numerics import at_least, power


@record
class Coefs:
    """Coefficients of the law."""

    E: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    A: Scalar = var("weight of the power law", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of dense_parameter_count", bounds=(0, 10), start=(0.1, 0.6))
    beta: Scalar = var("exponent of many experts", bounds=(0, 10), start=(0.05, 0.5))
    e0: Scalar = var("experts that the dense model is worth", unit="experts", bounds=(0, 1e4), start=(0, 30))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    size = power(at_least(x.dense_parameter_count, FLOOR) / 1e8, -c.alpha)
    experts = power(at_least(x.num_experts, FLOOR) + c.e0, -c.beta)
    return c.E + c.A * size * experts


LAW = Law(
    title="loss of a mixture of experts, level at few",
    question="How many experts?",
    advice=("As moe, but level where there are few experts, and better on the largest models. It knows no tokens."),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "all_data": Coefs(
            E=1.6979667089277484,
            A=1.104606202752379,
            alpha=0.21837249747409423,
            beta=0.09660643254352848,
            e0=2.0809012238134703,
        ),
    },
    fallback=mean,
    falls_with=("dense_parameter_count", "num_experts"),
    formula="E + A*(dense_parameter_count/1e8)**-alpha*(num_experts + e0)**-beta",
    objective="relative",
    source=Source(
        reference="form chosen and fitted here, on the training runs of SLDBench (Lin et al. 2025, arXiv:2507.21184)",
        evidence=(
            "fitted with this package to 193 runs. Without the largest 20 % of the models, R2 on these is 0.643, and "
            "that of moe 0.444; each size from smaller ones, 0.866 and 0.792"
        ),
        covariance=(
            (0.006468811,),
            (
                -0.00641665,
                0.007081529,
            ),
            (
                0.001710971,
                -0.001708611,
                0.0004678136,
            ),
            (
                0.0007583015,
                -0.0006189864,
                0.0002007337,
                0.0001154784,
            ),
            (
                0.008567392,
                0.01190447,
                0.002222253,
                0.004704761,
                0.7070622,
            ),
        ),
    ),
    golden=(
        (
            "all_data",
            {"dense_parameter_count": 132163584.0, "num_experts": 32},
            {"loss_validation": 2.4370775329472805},
        ),
        (
            "all_data",
            {"dense_parameter_count": 368123904, "num_experts": 512},
            {"loss_validation": 2.152647776795391},
        ),
    ),
)
