"""How much the loss of a language model rises when its weights are rounded to few bits after the training."""

from math import exp, inf

import jax.numpy as jnp

from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import power


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var(
        "parameters, without embeddings", unit="parameters", range=(3e7, 2.2e8), aliases=("num_params", "N")
    )
    tokens: Scalar = var("training tokens", unit="tokens", range=(1.5e9, 2.6e10), aliases=("num_tokens", "D"))
    weight_bits: Scalar = var("bits of a weight after rounding", unit="bits", bounds=(1, inf), aliases=("P_post",))


@record
class Coefs:
    """Coefficients of the law."""

    C: Scalar = var("weight of the penalty", unit="nat/token", bounds=(0, inf))
    gamma_D: Scalar = var("exponent of tokens", bounds=(0, 10), start=(0.1, 1))
    gamma_N: Scalar = var("exponent of params", bounds=(0, 10), start=(0.1, 1))
    gamma: Scalar = var("bits that lessen the penalty by a factor of e", unit="bits", bounds=(0, 100), start=(0.2, 2))


@record
class Outputs:
    """Outputs of the law."""

    loss_increase: Scalar = var("loss after rounding less the loss before", unit="nat/token")


def loss_increase(c: Coefs, x: Inputs) -> Scalar:
    """The increase of one configuration."""
    return c.C * power(x.tokens, c.gamma_D) * power(x.params, -c.gamma_N) * jnp.exp(-x.weight_bits / c.gamma)


LAW = Law(
    title="loss that rounding after the training costs",
    question="How few bits per number?",
    advice=(
        "For which precision to serve a finished model in: the penalty grows with the tokens it was trained on. Add "
        "it to the loss of another law. For rounding by GPTQ; other ways of rounding have coefficients of their own."
    ),
    fn=loss_increase,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "table2": Coefs(C=0.0598 * exp(1.1277), gamma_D=0.5068, gamma_N=0.3439, gamma=0.5907),
        "table2_no_offset": Coefs(C=0.0598, gamma_D=0.5068, gamma_N=0.3439, gamma=0.5907),
    },
    objective="relative",
    falls_with=("params", "weight_bits"),
    rises_with=("tokens",),
    formula="C*tokens**gamma_D*params**-gamma_N*exp(-weight_bits/gamma)",
    source=Source(
        reference="Kumar et al. 2024, arXiv:2411.04330, equation 2 and table 2",
        evidence=(
            "printed digits, from the text of the paper, which has the offset b of 1.1277 in this table alone, "
            "without a sign; it is taken to be that of the offsets of precision"
        ),
    ),
    ranges={None: {"tokens/params": None}},
    golden=(
        ("table2", {"params": 1e9, "tokens": 2e10, "weight_bits": 4}, {"loss_increase": 0.02825119898598522}),
        (
            "table2_no_offset",
            {"params": 1e9, "tokens": 2e10, "weight_bits": 4},
            {"loss_increase": 0.009147090939920251},
        ),
    ),
)
