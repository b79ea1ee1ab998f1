"""Losses on domains from their shares in the training tokens and the steps of training."""

from math import inf

import jax.numpy as jnp
import numpy as np

from jaxlaws.catalogue.data_mixing import Outputs
from jaxlaws.law import Law, Scalar, Source, Vector, record, var
from jaxlaws.numerics import log


@record
class Inputs:
    """Inputs of the law."""

    proportions: Vector = var(
        "share of each domain in the training tokens", shape="domain", columns="proportion_domain_{}", total=1.0
    )
    steps: Scalar = var("steps of training", unit="steps")


# The publication has (A / r**alpha) (B / s**beta + C); A is in B and C here.
@record
class Coefs:
    """Coefficients of the law."""

    C: Vector = var("loss after many steps on this domain alone", unit="nat/token", shape="domain", bounds=(0, inf))
    B: Vector = var("weight of steps", unit="nat/token", shape="domain", bounds=(0, inf))
    alpha: Vector = var("exponent of the own share", shape="domain", bounds=(0, 10), start=(0.01, 0.3))
    beta: Vector = var("exponent of steps", shape="domain", bounds=(0, 10), start=(0.1, 1))


def loss(c: Coefs, x: Inputs) -> Vector:
    """The losses of one configuration."""
    return jnp.exp(-c.alpha * log(x.proportions)) * (c.B * jnp.exp(-c.beta * log(x.steps)) + c.C)


LAW = Law(
    title="losses on domains by their shares and the steps",
    question="Which mixture of domains?",
    advice=(
        "For any number of domains, after fitting it to runs of your own; mixtures can then be chosen for a length of "
        "training that was not run. Each domain helps itself alone: it knows no transfer, and needs all of them."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    curvature="convex",
    objective="relative",
    falls_with=("steps",),
    formula="exp(-alpha*log(proportions))*(B*exp(-beta*log(steps)) + C)",
    source=Source(reference="Ge et al. 2024, arXiv:2405.14908", evidence="the form alone"),
    golden=(
        (
            Coefs(
                C=np.array([1.5, 2.0]), B=np.array([20.0, 30.0]), alpha=np.array([0.05, 0.1]), beta=np.array([0.5, 0.4])
            ),
            {"proportion_domain_1": 0.25, "proportion_domain_2": 0.75, "steps": 1e4},
            {"loss_domain_1": 1.8220148863116983, "loss_domain_2": 2.833931529354945},
        ),
    ),
)
