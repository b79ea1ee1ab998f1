"""Loss after supervised fine-tuning: a power law of the examples, rectified by what pre-training is worth."""

from math import inf

from jaxlaws.catalogue.sft import FLOOR, Inputs, Outputs
from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import at_least, power


@record
class Coefs:
    """Coefficients of the law."""

    E: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    B: Scalar = var("weight of the examples", unit="nat/token", bounds=(0, inf))
    D_l: Scalar = var("what pre-training is worth, in examples to the power of beta", bounds=(0, 1e100), start=(1, 1e3))
    beta: Scalar = var("exponent of examples", bounds=(0, 10), start=(0.1, 1))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    return c.E + c.B / (c.D_l + power(at_least(x.sft_data_size, FLOOR), c.beta))


LAW = Law(
    title="loss after fine-tuning, rectified",
    question="How many examples for fine-tuning?",
    advice=(
        "After fitting it to runs of your own. The same curve as sft_saturated, in the coefficients of its "
        "publication; that one has groups, and coefficients that a fit finds more easily."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    objective="huber_log",
    falls_with=("sft_data_size",),
    formula="E + B/(D_l + sft_data_size**beta)",
    source=Source(reference="Lin et al. 2024, arXiv:2402.02314", evidence="the form alone"),
    golden=((Coefs(E=1.5, B=300.0, D_l=120.0, beta=0.6), {"sft_data_size": 12800}, {"sft_loss": 2.2294118535505714}),),
)
