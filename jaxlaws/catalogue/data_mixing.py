"""Losses on five domains of a model trained on a mixture of them, each convex in the mixture."""

import jax.numpy as jnp
import numpy as np

from jaxlaws.law import Law, Matrix, Source, Vector, record, var
from jaxlaws.numerics import matvec


@record
class Inputs:
    """Inputs of the law. The domains are academic, prose, dialogue, symbolic and internet text."""

    proportions: Vector = var(
        "share of each domain in the training tokens",
        shape="domain",
        columns="proportion_domain_{}",
        range=((0.0, 0.0, 0.0, 0.0, 0.0), (0.5, 0.1875, 0.09375, 0.25, 0.75)),
        above=-1e-6,  # 0 and what rounding leaves of it
        total=1.0,
    )


@record
class Coefs:
    """Coefficients of the law; the matrix has a row per loss and a column per proportion."""

    c: Vector = var(
        "log of the loss that no proportion changes",
        unit="log(nat/token)",
        shape="domain",
        bounds=(-20, 20),
        start=(-1, 2),
    )
    t: Matrix = var(
        "weight of each proportion",
        unit="log(nat/token)",
        shape=("domain", "domain"),
        bounds=(-1e3, 1e3),
        start=(-10, 1),
    )


@record
class Outputs:
    """Outputs of the law."""

    loss: Vector = var("validation loss on each domain", unit="nat/token", shape="domain", columns="loss_domain_{}")


def loss(c: Coefs, x: Inputs) -> Vector:
    """The losses of one configuration."""
    return jnp.exp(c.c) + jnp.exp(matvec((c.t, x.proportions)))


# The paper has exp(k + t @ proportions). As proportions sum to 1, nothing can tell k from a number that is added to all
# of its row of t: both are one coefficient, written here as the exact sum of the printed decimals. The k of the rows
# are -2.1391, -2.1656, -7.1017, -3.6546 and -1.9510.
PILE_70M = Coefs(
    c=np.array([0.9750, 1.2624, 1.1375, 0.4750, 1.2402]),
    t=np.array(
        [
            [-12.2255, 0.5749, 0.5715, 0.4692, -0.5525],
            [-0.7726, -6.8467, -1.3801, -0.2937, -1.5922],
            [-0.3882, -0.8374, -38.9638, -0.4594, -0.8964],
            [-0.3257, 0.0159, -0.5419, -20.0763, -0.4955],
            [-0.7613, -1.0813, -2.4694, -0.2388, -5.0380],
        ]
    ),
)

LAW = Law(
    title="losses on five domains, convex",
    question="Which mixture of domains?",
    advice="Convex, so that a search always finds the best mixture. One size of model, and five domains.",
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={"pile_70m": PILE_70M},
    curvature="convex",
    formula="exp(c) + exp(t @ proportions)",
    source=Source(reference="Ye et al. 2024, arXiv:2403.16952", evidence="printed digits, from the paper"),
    golden=(  # from the printed c, k and t, in 40 digits
        (
            "pile_70m",
            {
                "proportion_domain_1": 0.2,
                "proportion_domain_2": 0.2,
                "proportion_domain_3": 0.2,
                "proportion_domain_4": 0.2,
                "proportion_domain_5": 0.2,
            },
            {
                "loss_domain_1": 2.7584293010099077,
                "loss_domain_2": 3.6472670220389336,
                "loss_domain_3": 3.1192074876458493,
                "loss_domain_4": 1.6217919517134087,
                "loss_domain_5": 3.6032403863803575,
            },
        ),
        (
            "pile_70m",
            {
                "proportion_domain_1": 0.5,
                "proportion_domain_2": 0.1875,
                "proportion_domain_3": 0.0625,
                "proportion_domain_4": 0.0625,
                "proportion_domain_5": 0.1875,
            },
            {
                "loss_domain_1": 2.6535404341773794,
                "loss_domain_2": 3.659674506723586,
                "loss_domain_3": 3.1695949283741336,
                "loss_domain_4": 1.8220926993682347,
                "loss_domain_5": 3.6394855272304505,
            },
        ),
    ),
)
