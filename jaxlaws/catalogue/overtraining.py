"""Loss of a dense language model from its parameters and tokens, with one exponent for both."""

from math import inf
from math import log as ln

import jax.numpy as jnp

from jaxlaws.catalogue.chinchilla import Outputs
from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import power

SIX = ln(6)  # of the FLOP for a parameter and token


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var(
        "parameters, embeddings included",
        unit="parameters",
        range=(10569312, 411616256),
        aliases=("num_params", "N"),
    )
    tokens: Scalar = var("training tokens", unit="tokens", range=(211386240, 8232325120), aliases=("num_tokens", "D"))


@record
class Coefs:
    """Coefficients of the law."""

    E: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    a: Scalar = var("weight of tokens per parameter, M", bounds=(0, inf))
    b: Scalar = var("weight of 1/M", bounds=(0, inf))
    eta: Scalar = var("exponent of compute, C, and of M", bounds=(0, 10), start=(0.05, 0.4))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    # E + (a M**eta + b M**-eta) C**-eta, where C is 6 params tokens and M is tokens / params.
    terms = c.a * power(x.params, -2 * c.eta) + c.b * power(x.tokens, -2 * c.eta)
    return c.E + jnp.exp(-c.eta * SIX) * terms


LAW = Law(
    title="loss from parameters and tokens, one exponent",
    question="How large a model, on how many tokens?",
    advice=(
        "For small models that are trained for much longer than is best for their compute, so that they are cheap to "
        "serve. At any fixed number of tokens per parameter it is a power law of compute. The loss is that on the C4 "
        "validation set, whatever the training set, and wrong by 5 % and more on other text. With task_error it "
        "predicts scores."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "c4": Coefs(E=1.50826, a=141.277, b=189.516, eta=0.121236),
        "redpajama": Coefs(E=1.83665, a=212.236, b=366.687, eta=0.136425),
        "refinedweb": Coefs(E=1.73446, a=157.116, b=246.207, eta=0.127197),
    },
    objective="relative",
    falls_with=("params", "tokens"),
    formula="E + exp(-eta*log(6))*(a*params**(-2*eta) + b*tokens**(-2*eta))",
    source=Source(
        reference="Gadre et al. 2024, arXiv:2403.08540",
        evidence=(
            "from the authors' code and runs, five of each training set, with the loss on C4 validation data; the "
            "paper prints three digits. Of its held-out runs, that of 1.4e9 parameters on 9e11 tokens is met to 0.7 %"
        ),
    ),
    ranges={None: {"tokens/params": (20, 320)}},
    golden=(
        ("c4", {"params": 1e9, "tokens": 2e10}, {"loss": 2.740375975994232}),
        ("redpajama", {"params": 1e9, "tokens": 2e10}, {"loss": 2.8628861703308313}),
        ("refinedweb", {"params": 1e9, "tokens": 2e10}, {"loss": 2.8463774353839733}),
    ),
)
