"""Losses on domains from the shares of all of them in the training tokens, each with a power of its own."""

from math import inf

import jax.numpy as jnp
import numpy as np

from jaxlaws.catalogue.data_mixing import Outputs
from jaxlaws.law import Law, Matrix, Source, Vector, record, var
from jaxlaws.numerics import log


@record
class Inputs:
    """Inputs of the law."""

    proportions: Vector = var(
        "share of each domain in the training tokens", shape="domain", columns="proportion_domain_{}", total=1.0
    )


@record
class Coefs:
    """Coefficients of the law; the matrices have a row per loss and a column per proportion."""

    F: Matrix = var("weight of each share", unit="nat/token", shape=("domain", "domain"), bounds=(0, inf))
    a: Matrix = var("exponent of each share", shape=("domain", "domain"), bounds=(0, 10), start=(0.01, 0.3))


def loss(c: Coefs, x: Inputs) -> Vector:
    """The losses of one configuration."""
    return jnp.sum(c.F * jnp.exp(-c.a * log(x.proportions)), axis=-1)


LAW = Law(
    title="losses on domains as sums of powers of their shares",
    question="Which mixture of domains?",
    advice=(
        "After fitting it to runs of your own, many of them: it has two coefficients for each pair of domains. "
        "Convex, so that a search always finds the best mixture; it needs some of every domain."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    curvature="convex",
    objective="relative",
    formula="sum(F*exp(-a*log(proportions)), -1)",
    source=Source(
        reference="the sum of power laws of shares, as after Ge et al. 2024, arXiv:2405.14908",
        evidence="the form alone",
    ),
    golden=(
        (
            Coefs(F=np.array([[1.5, 0.5], [0.25, 2.0]]), a=np.array([[0.05, 0.1], [0.02, 0.2]])),
            {"proportion_domain_1": 0.25, "proportion_domain_2": 0.75},
            {"loss_domain_1": 2.12225319828682, "loss_domain_2": 2.375476138761641},
        ),
    ),
)
