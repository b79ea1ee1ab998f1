"""Loss of a student that another model teaches, from its parameters, its tokens, and the loss of its teacher."""

from math import inf

from jaxlaws.catalogue.chinchilla import Outputs
from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import power


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var(
        "parameters of the student, without embeddings",
        unit="parameters",
        range=(1.43e8, 7.75e9),
        aliases=("num_params", "N_S"),
    )
    tokens: Scalar = var(
        "tokens of the distillation", unit="tokens", range=(4e9, 5.12e11), aliases=("num_tokens", "D_S")
    )
    teacher_loss: Scalar = var("loss of the teacher", unit="nat/token", aliases=("L_T",))


@record
class Coefs:
    """Coefficients of the law; the first six are those of skaling, for the student without a teacher."""

    E: Scalar = var("irreducible loss without a teacher", unit="nat/token", bounds=(0, inf))
    A: Scalar = var("weight of params without a teacher", bounds=(0, 1e100), start=(1e2, 1e5))
    B: Scalar = var("weight of tokens without a teacher", bounds=(0, 1e100), start=(1e2, 1e5))
    alpha: Scalar = var("exponent of params without a teacher", bounds=(0, 10), start=(0.1, 1))
    beta: Scalar = var("exponent of tokens without a teacher", bounds=(0, 10), start=(0.1, 1))
    k: Scalar = var("exponent of the sum without a teacher", bounds=(0, 10), start=(0.2, 1.5))
    A_S: Scalar = var("weight of params", bounds=(0, 1e100), start=(1e2, 1e5))
    B_S: Scalar = var("weight of tokens", bounds=(0, 1e100), start=(1e2, 1e5))
    alpha_S: Scalar = var("exponent of params", bounds=(0, 10), start=(0.1, 1))
    beta_S: Scalar = var("exponent of tokens", bounds=(0, 10), start=(0.1, 1))
    k_S: Scalar = var("exponent of the sum", bounds=(0, 10), start=(0.2, 1.5))
    c0: Scalar = var("exponent of teacher_loss", bounds=(-10, 10), start=(0, 4))
    c1: Scalar = var("exponent of the ratio of teacher to student", bounds=(0, 1e4), start=(1, 1000))
    d1: Scalar = var("ratio at which the law turns", bounds=(0.01, 100), start=(0.5, 2))
    f1: Scalar = var("how gradually it turns", bounds=(0.02, 10), start=(0.05, 1))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    alone = c.E + power(c.A * power(x.params, -c.alpha) + c.B * power(x.tokens, -c.beta), c.k)
    turn = power(1 + power(x.teacher_loss / (alone * c.d1), 1 / c.f1), -c.c1 * c.f1)
    size = power(c.A_S * power(x.params, -c.alpha_S) + c.B_S * power(x.tokens, -c.beta_S), c.k_S)
    return x.teacher_loss + power(x.teacher_loss, -c.c0) * turn * size


LAW = Law(
    title="loss of a student, by the loss of its teacher",
    question="How large a model, on how many tokens?",
    advice=(
        "For whether a teacher is worth its cost. With the best teacher for it, a student of the sizes and tokens of "
        "the runs always does better than without one, by less the more tokens it has; with a given teacher, or where "
        "the teacher's compute counts, it need not. A better teacher need not make a better student. To fit it to your "
        "own runs, fix the first six coefficients at those of skaling for models without a teacher."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "busbridge2025": Coefs(
            E=1.22,
            A=3355.0,
            B=18186.0,
            alpha=0.408,
            beta=0.431,
            k=0.452,
            A_S=2243.0,
            B_S=24181.0,
            alpha_S=0.321,
            beta_S=0.637,
            k_S=0.764,
            c0=2.549,
            c1=522.6,
            d1=1.315,
            f1=0.09,
        )
    },
    objective="huber_log",
    falls_with=("params", "tokens"),
    formula="teacher_loss + teacher_loss**-c0"
    "*(1 + (teacher_loss/(d1*(E + (A*params**-alpha + B*tokens**-beta)**k)))**(1/f1))**(-c1*f1)"
    "*(A_S*params**-alpha_S + B_S*tokens**-beta_S)**k_S",
    source=Source(
        reference="Busbridge et al. 2025, arXiv:2502.08606, equation 8 and table 6",
        evidence=(
            "printed digits, from the text of the paper: 697 runs. The form is confirmed elsewhere, and the digits of "
            "table 6 are not. Its interval for c1 has no width, so that there are no standard errors"
        ),
    ),
    ranges={None: {"tokens/params": None}},
    golden=(("busbridge2025", {"params": 1e9, "tokens": 2e10, "teacher_loss": 2.2}, {"loss": 2.316953374937284}),),
)
