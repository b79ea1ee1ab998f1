"""Loss of a dense language model from its parameters without embeddings and its tokens, without an irreducible part."""

from jaxlaws.catalogue.chinchilla import Outputs
from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import power


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var(
        "parameters, without embeddings", unit="parameters", range=(768, 1.5e9), aliases=("num_params", "N")
    )
    tokens: Scalar = var("distinct training tokens", unit="tokens", range=(2.2e7, 2.3e10), aliases=("num_tokens", "D"))


@record
class Coefs:
    """Coefficients of the law."""

    N_c: Scalar = var("scale of params", unit="parameters", bounds=(0, 1e100), start=(1e3, 1e17))
    D_c: Scalar = var("scale of tokens", unit="tokens", bounds=(0, 1e100), start=(1e3, 1e17))
    alpha_N: Scalar = var("exponent of params", bounds=(0, 10), start=(0.02, 0.5))
    alpha_D: Scalar = var("exponent of tokens", bounds=(0, 10), start=(0.02, 0.5))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    return power(power(c.N_c / x.params, c.alpha_N / c.alpha_D) + c.D_c / x.tokens, c.alpha_D)


LAW = Law(
    title="loss from parameters and tokens, falling to zero",
    question="How large a model, on how many tokens?",
    advice=(
        "For history, and for small models; to plan, take chinchilla. Its tokens are the distinct ones of runs that "
        "stopped early, whose cost is not 6 FLOP per parameter and token: with it, best sizes grow as compute**0.575, "
        "where the paper has compute**0.73, from its laws of steps and batches. That both are too large has been laid "
        "to sizes without embeddings (Pearce and Song 2024, arXiv:2406.12907), and to the last layer, the warm-up and "
        "the settings of the optimiser, and not to the learning rate's decay (Porian et al. 2024, arXiv:2406.19146)."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={"table2": Coefs(N_c=6.4e13, D_c=1.8e13, alpha_N=0.076, alpha_D=0.103)},
    objective="huber_log",
    falls_with=("params", "tokens"),
    formula="((N_c/params)**(alpha_N/alpha_D) + D_c/tokens)**alpha_D",
    source=Source(
        reference="Kaplan et al. 2020, arXiv:2001.08361, equation 1.5 and table 2",
        evidence="printed digits, from secondary sources that agree",
    ),
    ranges={None: {"tokens/params": None}},
    golden=(("table2", {"params": 1e9, "tokens": 2e10}, {"loss": 2.373882448217487}),),
)
