"""Loss of a dense language model from its parameters and training tokens."""

from math import inf

from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import power


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var(
        "parameters, embeddings included", unit="parameters", range=(5.73e7, 1.62e10), aliases=("num_params", "N")
    )
    tokens: Scalar = var("training tokens", unit="tokens", range=(2.45e8, 3.18e11), aliases=("num_tokens", "D"))


@record
class Coefs:
    """Coefficients of the law."""

    E: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    A: Scalar = var("weight of params", unit="nat/token", bounds=(0, inf))
    B: Scalar = var("weight of tokens", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of params", bounds=(0, inf))
    beta: Scalar = var("exponent of tokens", bounds=(0, inf))


@record
class Outputs:
    """Outputs of the law."""

    loss: Scalar = var("loss", unit="nat/token")


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    return c.E + c.A * power(x.params, -c.alpha) + c.B * power(x.tokens, -c.beta)


LAW = Law(
    title="loss from parameters and tokens",
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        # Published as logarithms of E, A and B: .5267228, 6.0073404, 6.0179186.
        "hoffmann2022": Coefs(
            E=1.6933736809989528, A=406.4010175194737, B=410.7228269450398, alpha=0.33917084, beta=0.2849083
        ),
        "hoffmann2022_printed": Coefs(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28),
        # Hoffmann's runs, fitted again by Besiroglu et al. 2024, arXiv:2404.10102.
        "besiroglu2024": Coefs(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658),
    },
    objective="huber_log",
    formula="E + A*params**-alpha + B*tokens**-beta",
    source=Source(
        reference="Hoffmann et al. 2022, arXiv:2203.15556, approach 3; Besiroglu et al. 2024, arXiv:2404.10102"
    ),
    golden=(
        ("hoffmann2022", {"params": 1e9, "tokens": 2e10}, {"loss": 2.530668201329356}),
        ("hoffmann2022_printed", {"params": 1e9, "tokens": 2e10}, {"loss": 2.5800478722379934}),
        ("besiroglu2024", {"params": 1e9, "tokens": 2e10}, {"loss": 2.530050323678703}),
    ),
)
