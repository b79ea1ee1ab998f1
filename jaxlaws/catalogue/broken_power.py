"""A power law that turns into another one: of any quantity, by any other."""

from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import power


@record
class Inputs:
    """Inputs of the law."""

    x: Scalar = var("what is scaled: compute, parameters, tokens, or examples", unit="any")


@record
class Coefs:
    """Coefficients of the law."""

    a: Scalar = var("limit", unit="as y")
    b: Scalar = var("weight of the power law", unit="as y")
    c0: Scalar = var("exponent of x before the break", bounds=(-10, 10), start=(0, 1))
    c1: Scalar = var("exponent that the break adds", bounds=(-10, 10), start=(-1, 1))
    d1: Scalar = var("where the break is", unit="as x", bounds=(0, 1e100), start=(1e3, 1e9))
    f1: Scalar = var("how gradual it is", bounds=(0.02, 10), start=(0.1, 3))


@record
class Outputs:
    """Outputs of the law."""

    y: Scalar = var("what is measured: a loss, or an error", unit="any")


def broken_power(c: Coefs, x: Inputs) -> Scalar:
    """What is predicted for one configuration."""
    return c.a + c.b * power(x.x, -c.c0) * power(1 + power(x.x / c.d1, 1 / c.f1), -c.c1 * c.f1)


EXAMPLE = Coefs(a=0.5, b=3.0, c0=0.1, c1=0.3, d1=1e6, f1=0.5)

LAW = Law(
    title="a power law with a break",
    question="What will a task's score be?",
    advice=(
        "After fitting it to runs of your own, where a curve in logarithms bends once: sudden gains, or a floor. It "
        "tells nothing of a break that lies beyond the runs."
    ),
    fn=broken_power,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    formula="a + b*x**-c0*(1 + (x/d1)**(1/f1))**(-c1*f1)",
    source=Source(reference="Caballero et al. 2022, arXiv:2210.14891, with one break", evidence="the form alone"),
    golden=(
        (EXAMPLE, {"x": 1e4}, {"y": 1.6943035978678453}),
        (EXAMPLE, {"x": 1e7}, {"y": 0.7995525691010803}),
        (EXAMPLE, {"x": 1e9}, {"y": 0.5475467886418182}),
    ),
)
