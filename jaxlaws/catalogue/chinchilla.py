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
    alpha: Scalar = var("exponent of params", bounds=(0, 10))
    beta: Scalar = var("exponent of tokens", bounds=(0, 10))


@record
class Outputs:
    """Outputs of the law."""

    loss: Scalar = var("loss", unit="nat/token")


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    return c.E + c.A * power(x.params, -c.alpha) + c.B * power(x.tokens, -c.beta)


LAW = Law(
    title="loss from parameters and tokens",
    question="How large a model, on how many tokens?",
    advice=(
        "The first choice for dense models: besiroglu2024, which has errors; sardana2024 where a small model is "
        "trained for very long; hoffmann2022 to repeat the original. Their best models differ by several times. Its "
        "exponents come from one data set and tokenizer: fit your own runs for others. It knows no repeated data, and "
        "no data quality."
    ),
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
        "besiroglu2024": Coefs(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658),
        "sardana2024": Coefs(E=1.45, A=33.66, B=138.9, alpha=0.18, beta=0.24),
    },
    objective="huber_log",
    falls_with=("params", "tokens"),
    formula="E + A*params**-alpha + B*tokens**-beta",
    source=Source(
        reference="Hoffmann et al. 2022, arXiv:2203.15556, approach 3",
        evidence=("from the text of the paper and its source"),
    ),
    sources={
        "besiroglu2024": Source(
            reference="Besiroglu et al. 2024, arXiv:2404.10102",
            evidence=(
                "printed. The standard errors are those that the authors' notebook gives, from fits to the points of "
                "figure 4 of Hoffmann et al., drawn again; the paper prints 0.03, 124.58, 1293.23, 0.02 and 0.02. The "
                "covariance is that of 4,000 such fits with this package, whose errors agree to 4 %, but "
                "for B: as a normal distribution of its logarithm it has an error of 1,010, and the fits have a longer "
                "tail"
            ),
            stderr=Coefs(E=0.0257, A=124.5, B=1293.0, alpha=0.0154, beta=0.0206),
            logs=("A", "B"),
            covariance=(
                (0.0006775431,),
                (
                    0.003869747,
                    0.06413184,
                ),
                (
                    0.00699486,
                    -0.02395887,
                    0.1797548,
                ),
                (
                    0.0002285323,
                    0.003824334,
                    -0.001495457,
                    0.0002283602,
                ),
                (
                    0.0003406944,
                    -0.001206525,
                    0.008790327,
                    -7.535276e-05,
                    0.0004301445,
                ),
            ),
        ),
        "sardana2024": Source(
            reference="Sardana et al. 2024, arXiv:2401.00448, all runs, up to 10,000 tokens per parameter",
            evidence=("printed digits, from secondary sources that agree"),
        ),
    },
    # Those of the runs in figure 4 of Hoffmann et al., of which besiroglu2024 leaves out the five of the largest loss.
    ranges={
        None: {"tokens/params": (0.036, 341.2)},
        "besiroglu2024": {"tokens": (8.18e8, 3.18e11), "tokens/params": (0.456, 341.2)},
        "sardana2024": {"params": (1.5e8, 6e9), "tokens": (1.5e9, 1.5e12), "tokens/params": (10, 1e4)},
    },
    golden=(
        ("hoffmann2022", {"params": 1e9, "tokens": 2e10}, {"loss": 2.530668201329356}),
        ("hoffmann2022_printed", {"params": 1e9, "tokens": 2e10}, {"loss": 2.5800478722379934}),
        ("besiroglu2024", {"params": 1e9, "tokens": 2e10}, {"loss": 2.530050323678703}),
        ("sardana2024", {"params": 1e9, "tokens": 2e10}, {"loss": 2.7256726440343515}),
    ),
)
