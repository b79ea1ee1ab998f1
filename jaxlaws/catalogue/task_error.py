"""Error on tasks from the loss of a language model."""

from math import inf

import jax.numpy as jnp

from jaxlaws.law import Law, Scalar, Source, record, var


@record
class Inputs:
    """Inputs of the law."""

    loss: Scalar = var("loss on C4 validation data", unit="nat/token", aliases=("L",))


@record
class Coefs:
    """Coefficients of the law."""

    epsilon: Scalar = var("error of a model that knows nothing", bounds=(0, 1), start=(0.5, 1))
    k: Scalar = var("weight of the loss", bounds=(0, inf))
    gamma: Scalar = var("exponent of the loss", unit="token/nat", bounds=(0, 10), start=(0.2, 2))


@record
class Outputs:
    """Outputs of the law."""

    error: Scalar = var("share of wrong answers, the mean over 17 tasks")


def error(c: Coefs, x: Inputs) -> Scalar:
    """The error at one loss."""
    return c.epsilon - c.k * jnp.exp(-c.gamma * x.loss)


LAW = Law(
    title="error on tasks from the loss",
    question="What will a task's score be?",
    advice=(
        "For the mean over 17 tasks, from the loss on the C4 validation set, which overtraining predicts for each of "
        "these training sets; not from a loss on other text. A single task can turn: see easy_question."
    ),
    fn=error,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "c4": Coefs(epsilon=0.84974, k=2.07891, gamma=0.75612),
        "redpajama": Coefs(epsilon=0.85699, k=2.20649, gamma=0.71459),
        "refinedweb": Coefs(epsilon=0.86528, k=2.21481, gamma=0.70705),
    },
    rises_with=("loss",),
    formula="epsilon - k*exp(-gamma*loss)",
    source=Source(
        reference="Gadre et al. 2024, arXiv:2403.08540",
        evidence="from the authors' code and runs, which give these five digits; the paper prints three",
    ),
    golden=(
        ("c4", {"loss": 2.8}, {"error": 0.5994893546839094}),
        ("redpajama", {"loss": 2.8}, {"error": 0.5586283633274054}),
        ("refinedweb", {"loss": 2.8}, {"error": 0.5594033549214757}),
    ),
)
