"""Loss after supervised fine-tuning: a power law that sets in once there are enough examples."""

from math import inf
from math import log as ln

import jax.numpy as jnp

from jaxlaws.catalogue.sft import FLOOR, Inputs, Outputs
from jaxlaws.law import Law, Scalar, Source, mean, record, var
from jaxlaws.numerics import at_least, log


@record
class Coefs:
    """Coefficients of the law."""

    E: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    A: Scalar = var("loss above it without fine-tuning", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of many examples", bounds=(0, 10), start=(0.1, 1))
    log_n0: Scalar = var("log of the examples that halve A", bounds=(ln(100), ln(1e7)), start=(ln(1e3), ln(1e6)))


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    return c.E + c.A / (1 + jnp.exp(c.alpha * (log(at_least(x.sft_data_size, FLOOR)) - c.log_n0)))


GROUPS = {  # E, A, alpha, log_n0
    "('MBZUAI/LaMini-GPT-124M', 'flan')": (1.13416302466, 3.32205036403, 0.463595908991, 11.1518223397),
    "('MBZUAI/LaMini-GPT-124M', 'gigaword')": (0.945340680753, 2.1346326505, 0.798279177747, 10.4910489319),
    "('MBZUAI/LaMini-GPT-124M', 'wikiword')": (0.553993289956, 2.70113970681, 0.219037465395, 10.7809715748),
    "('MBZUAI/LaMini-GPT-774M', 'flan')": (0.0, 3.76725171627, 0.336567674722, 12.9547739369),
    "('MBZUAI/LaMini-GPT-774M', 'gigaword')": (0.800458515834, 1.94637183996, 0.747633994659, 10.3468513034),
    "('MBZUAI/LaMini-GPT-774M', 'wikiword')": (0.837637822541, 1.98673193327, 0.20042709262, 8.5472145982),
    "('cerebras/Cerebras-GPT-1.3B', 'flan')": (1.30526564927, 1.8276224998, 0.291262708385, 10.2347559858),
    "('cerebras/Cerebras-GPT-1.3B', 'gigaword')": (0.0, 3.25395460595, 0.26962217877, 11.4582090822),
    "('cerebras/Cerebras-GPT-1.3B', 'wikiword')": (0.0, 3.06314527873, 0.151306538929, 13.6210813086),
    "('cerebras/Cerebras-GPT-256M', 'flan')": (0.0, 3.61616221095, 0.265070202971, 14.7773698019),
    "('cerebras/Cerebras-GPT-256M', 'gigaword')": (0.663638957973, 2.35136145615, 0.4974058614, 10.6097548396),
    "('cerebras/Cerebras-GPT-256M', 'wikiword')": (0.474189482477, 4.05511411139, 0.168998159556, 8.53756304272),
    "('facebook/bart-base', 'flan')": (0.271912679721, 4.48654143713, 0.292445304009, 11.4493729703),
    "('facebook/bart-base', 'gigaword')": (0.837080284874, 2.59785925999, 0.747803652137, 9.89525883864),
    "('facebook/bart-base', 'wikiword')": (1.44885747999, 2.20993288181, 0.586442144029, 7.92474556285),
    "('facebook/bart-large', 'flan')": (0.0, 4.4287311473, 0.191446590015, 11.2860088406),
    "('facebook/bart-large', 'gigaword')": (0.716764250176, 2.64944082949, 0.697040066329, 9.66663118791),
    "('facebook/bart-large', 'wikiword')": (1.05279906771, 2.47017914149, 0.228989948796, 4.60517018599),
    "('facebook/opt-1.3b', 'flan')": (0.430969919784, 2.72046818208, 0.160508743451, 11.8122249928),
    "('facebook/opt-1.3b', 'gigaword')": (0.885237338799, 2.02746480438, 0.55989556092, 9.69992631174),
    "('facebook/opt-1.3b', 'wikiword')": (0.737843246425, 2.09139565329, 0.134404302724, 6.60985276487),
    "('facebook/opt-350m', 'flan')": (0.0, 3.46917029576, 0.270592544129, 13.9610056256),
    "('facebook/opt-350m', 'gigaword')": (0.848455218573, 2.36379271749, 0.645709729883, 9.79662525204),
    "('facebook/opt-350m', 'wikiword')": (0.494372073387, 3.98000513606, 0.118988907403, 4.60517018599),
    "('facebook/opt-6.7b', 'flan')": (1.28425167821, 1.22977174331, 0.11850696913, 8.52664727363),
    "('facebook/opt-6.7b', 'gigaword')": (1.74626213187, 0.247468338996, 0.673169068964, 10.610816018),
    "('facebook/opt-6.7b', 'wikiword')": (1.14429441167, 0.835188257694, 0.269173771541, 7.74501676385),
    "('google/mt5-base', 'flan')": (1.16949942811, 2.80938268242, 0.247917545539, 9.20814014749),
    "('google/mt5-base', 'gigaword')": (1.54608723995, 1.58885657665, 0.240432885641, 11.965355432),
    "('google/mt5-base', 'wikiword')": (0.826267060562, 2.56239042057, 0.331873788481, 8.99183424845),
    "('google/mt5-large', 'flan')": (1.34383019613, 1.58719776109, 0.315723202696, 9.46088718613),
    "('google/mt5-large', 'gigaword')": (1.65530668544, 1.26069396002, 0.418750485288, 11.6774012458),
    "('google/mt5-large', 'wikiword')": (0.653291203937, 3.52648341678, 0.191791214, 6.20667013918),
    "('gpt2', 'flan')": (1.34174103714, 3.16217990187, 0.522206323569, 11.0118263909),
    "('gpt2', 'gigaword')": (0.845071478234, 2.32204864963, 0.691117463188, 10.1283518854),
    "('gpt2', 'wikiword')": (1.14900948847, 1.93138852548, 0.333818084851, 9.36026761449),
    "('t5-base', 'flan')": (0.0, 3.09649985163, 0.192006867645, 14.1670012856),
    "('t5-base', 'gigaword')": (0.523180656023, 1.41760296731, 0.302203157282, 4.60517018599),
    "('t5-base', 'wikiword')": (0.71401610189, 1.39606584065, 0.205770649421, 10.627460829),
    "('t5-small', 'flan')": (0.0, 3.71217061384, 0.170823984274, 13.7191595742),
    "('t5-small', 'gigaword')": (0.599785883681, 1.30987455049, 0.304659612403, 5.40806696773),
    "('t5-small', 'wikiword')": (0.0, 2.80443647117, 0.140879804632, 13.0209740728),
}

LAW = Law(
    title="loss after fine-tuning, level at first",
    question="How many examples for fine-tuning?",
    advice=(
        "As sft, but level at first, and better on twice as many examples as it was fitted to. One group per model "
        "and data set."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={name: Coefs(E=E, A=A, alpha=alpha, log_n0=log_n0) for name, (E, A, alpha, log_n0) in GROUPS.items()},
    fallback=mean,
    falls_with=("sft_data_size",),
    formula="E + A/(1 + exp(alpha*(log(sft_data_size) - log_n0)))",
    objective="relative",
    source=Source(
        reference="form chosen and fitted here, on the training runs of SLDBench (Lin et al. 2025, arXiv:2507.21184)",
        evidence=(
            "fitted with this package to 504 runs. Without the largest 20 % of the sizes, R2 on these is 0.977, and "
            "that of sft 0.712; each size from smaller ones, 0.990 and 0.937"
        ),
    ),
    golden=(
        ("('gpt2', 'flan')", {"sft_data_size": 4096.0}, {"sft_loss": 3.881823597339587}),
        ("('t5-base', 'gigaword')", {"sft_data_size": 409600}, {"sft_loss": 0.6293682292770751}),
    ),
)
