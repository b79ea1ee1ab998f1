"""Loss of a language model that is trained with few bits per number."""

from math import inf

from jaxlaws.catalogue.chinchilla import Outputs
from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import power, saturation


@record
class Inputs:
    """Inputs of the law."""

    params: Scalar = var(
        "parameters, without embeddings", unit="parameters", range=(3e7, 2.2e8), aliases=("num_params", "N")
    )
    tokens: Scalar = var("training tokens", unit="tokens", range=(1.5e9, 2.6e10), aliases=("num_tokens", "D"))
    weight_bits: Scalar = var("bits of a weight", unit="bits", range=(3, 12), bounds=(1, inf), aliases=("P_w",))
    activation_bits: Scalar = var(
        "bits of an activation", unit="bits", range=(4, 12), bounds=(4, inf), aliases=("P_a",)
    )
    kv_bits: Scalar = var("bits of a key or value", unit="bits", range=(4, 12), bounds=(4, inf), aliases=("P_kv",))


@record
class Coefs:
    """Coefficients of the law."""

    E: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    A: Scalar = var("weight of params", unit="nat/token", bounds=(0, inf))
    B: Scalar = var("weight of tokens", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of params", bounds=(0, 10), start=(0.1, 1))
    beta: Scalar = var("exponent of tokens", bounds=(0, 10), start=(0.1, 1))
    gamma_w: Scalar = var("bits of a weight that matter", unit="bits", bounds=(0.05, 100), start=(0.5, 5))
    gamma_a: Scalar = var("bits of an activation that matter", unit="bits", bounds=(0.05, 100), start=(0.5, 5))
    gamma_kv: Scalar = var("bits of a key or value that matter", unit="bits", bounds=(0.05, 100), start=(0.5, 5))
    n_w: Scalar = var("gamma_w that a weight needs to begin with", bounds=(0, 10), start=(0, 1))
    n_a: Scalar = var("gamma_a that an activation needs to begin with", bounds=(0, 10), start=(0, 1))
    n_kv: Scalar = var("gamma_kv that a key or value needs to begin with", bounds=(0, 10), start=(0, 1))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    counting = (  # the share of the parameters that counts
        saturation(x.weight_bits / c.gamma_w, c.n_w)
        * saturation(x.activation_bits / c.gamma_a, c.n_a)
        * saturation(x.kv_bits / c.gamma_kv, c.n_kv)
    )
    return c.E + c.A * power(x.params * counting, -c.alpha) + c.B * power(x.tokens, -c.beta)


_TABLE_2 = {
    "E": 2.7648, "A": 4299.0, "B": 18060.0, "alpha": 0.4965, "beta": 0.4965,
    "gamma_w": 2.6745, "gamma_a": 2.2102, "gamma_kv": 0.9578,
}  # fmt: skip

LAW = Law(
    title="loss after training in few bits",
    question="How few bits per number?",
    advice=(
        "For how many parameters few bits are worth, in training, and how few are best: 7 for all numbers alike, at "
        "any size, which is an extrapolation from small models. A search takes the three kinds of bits apart: 6.5, 8.2 "
        "and 5.3 are best. Take table2, not the simpler form of the text. What rounding after the training costs is in "
        "quantization."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "table2": Coefs(**_TABLE_2, n_w=0.3037, n_a=1.4072, n_kv=2.4185),
        "table2_no_offsets": Coefs(**_TABLE_2, n_w=0.0, n_a=0.0, n_kv=0.0),
    },
    objective="huber_log",
    decades=0,  # where counting begins, digits are lost
    falls_with=("params", "tokens", "weight_bits", "activation_bits", "kv_bits"),
    formula="E + A*(params*maximum(-expm1(n_w - weight_bits/gamma_w), 0)"
    "*maximum(-expm1(n_a - activation_bits/gamma_a), 0)*maximum(-expm1(n_kv - kv_bits/gamma_kv), 0))**-alpha"
    " + B*tokens**-beta",
    source=Source(
        reference="Kumar et al. 2024, arXiv:2411.04330, table 2",
        evidence=(
            "printed digits, from the text of the paper, which has the offsets n in this table alone, without a sign: "
            "with that of this law, training diverges at 3 bits of an activation, and 7.0 bits are best, as it says"
        ),
    ),
    ranges={None: {"tokens/params": None}},
    golden=(
        (
            "table2_no_offsets",
            {"params": 1e9, "tokens": 2e10, "weight_bits": 8, "activation_bits": 1e3, "kv_bits": 1e3},
            {"loss": 3.053518724213483},
        ),
        (
            "table2_no_offsets",
            {"params": 1e8, "tokens": 1e10, "weight_bits": 4, "activation_bits": 8, "kv_bits": 6},
            {"loss": 3.4882114120775523},
        ),
        (
            "table2",
            {"params": 1e8, "tokens": 1e10, "weight_bits": 4, "activation_bits": 8, "kv_bits": 6},
            {"loss": 3.548115053699082},
        ),
    ),
)
