"""Loss after supervised fine-tuning on a number of examples, for 14 models and 3 datasets."""

from math import inf

from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import at_least, power

FLOOR = 1.0


@record
class Inputs:
    """Inputs of the law."""

    sft_data_size: Scalar = var("fine-tuning examples", unit="examples", range=(200, 409600), floor=FLOOR, integer=True)


@record
class Coefs:
    """Coefficients of the law."""

    L_inf: Scalar = var("irreducible loss", unit="nat/token", bounds=(0, inf))
    A: Scalar = var("loss above it after one example", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of sft_data_size", bounds=(0, 10))


@record
class Outputs:
    """Outputs of the law."""

    sft_loss: Scalar = var("loss after fine-tuning", unit="nat/token")


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    return c.L_inf + c.A * power(at_least(x.sft_data_size, FLOOR), -c.alpha)


LAW = Law(
    title="loss after fine-tuning",
    question="How many examples for fine-tuning?",
    advice=(
        "A power law per model and data set, as its source predicts them. With few examples, where the loss is level, "
        "it is wrong."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "('MBZUAI/LaMini-GPT-124M', 'flan')": Coefs(L_inf=0.0000000000, A=7.4655976596, alpha=0.0893833639),
        "('MBZUAI/LaMini-GPT-124M', 'gigaword')": Coefs(L_inf=0.0000000000, A=6.9696265408, alpha=0.1248879757),
        "('MBZUAI/LaMini-GPT-124M', 'wikiword')": Coefs(L_inf=0.0000000000, A=3.8453873318, alpha=0.0660024991),
        "('MBZUAI/LaMini-GPT-774M', 'flan')": Coefs(L_inf=0.0000000000, A=5.7130408378, alpha=0.0782922582),
        "('MBZUAI/LaMini-GPT-774M', 'gigaword')": Coefs(L_inf=0.0000000000, A=6.2931215297, alpha=0.1291848119),
        "('MBZUAI/LaMini-GPT-774M', 'wikiword')": Coefs(L_inf=0.0000000000, A=2.8960123299, alpha=0.0544754427),
        "('cerebras/Cerebras-GPT-1.3B', 'flan')": Coefs(L_inf=0.0000000000, A=3.7633686465, alpha=0.0524564535),
        "('cerebras/Cerebras-GPT-1.3B', 'gigaword')": Coefs(L_inf=0.0000000000, A=4.8571354747, alpha=0.0957503004),
        "('cerebras/Cerebras-GPT-1.3B', 'wikiword')": Coefs(L_inf=0.0000000000, A=3.1982974523, alpha=0.0512269552),
        "('cerebras/Cerebras-GPT-256M', 'flan')": Coefs(L_inf=0.0000000000, A=4.5820265379, alpha=0.0513362827),
        "('cerebras/Cerebras-GPT-256M', 'gigaword')": Coefs(L_inf=0.0000000000, A=5.7873187312, alpha=0.1119673779),
        "('cerebras/Cerebras-GPT-256M', 'wikiword')": Coefs(L_inf=0.0000000000, A=4.5087532133, alpha=0.0704142022),
        "('facebook/bart-base', 'flan')": Coefs(L_inf=0.0000000000, A=7.1611436323, alpha=0.0916473833),
        "('facebook/bart-base', 'gigaword')": Coefs(L_inf=0.0000000000, A=9.2960910354, alpha=0.1581352715),
        "('facebook/bart-base', 'wikiword')": Coefs(L_inf=0.2857551447, A=5.8306038938, alpha=0.1217045037),
        "('facebook/bart-large', 'flan')": Coefs(L_inf=0.0000000000, A=5.2395659867, alpha=0.0767344267),
        "('facebook/bart-large', 'gigaword')": Coefs(L_inf=0.0000000000, A=9.5069117910, alpha=0.1693705958),
        "('facebook/bart-large', 'wikiword')": Coefs(L_inf=0.7850518893, A=2.6271353620, alpha=0.1159319757),
        "('facebook/opt-1.3b', 'flan')": Coefs(L_inf=0.0000000000, A=3.2428955975, alpha=0.0499613896),
        "('facebook/opt-1.3b', 'gigaword')": Coefs(L_inf=0.0000000000, A=5.6934577617, alpha=0.1182278832),
        "('facebook/opt-1.3b', 'wikiword')": Coefs(L_inf=0.0000000000, A=2.3523591081, alpha=0.0419183827),
        "('facebook/opt-350m', 'flan')": Coefs(L_inf=0.0000000000, A=4.5858563672, alpha=0.0606207735),
        "('facebook/opt-350m', 'gigaword')": Coefs(L_inf=0.0000000000, A=7.4768918755, alpha=0.1403389747),
        "('facebook/opt-350m', 'wikiword')": Coefs(L_inf=0.0000000000, A=3.2500719821, alpha=0.0557536570),
        "('facebook/opt-6.7b', 'flan')": Coefs(L_inf=0.0000000000, A=2.2344284065, alpha=0.0191717060),
        "('facebook/opt-6.7b', 'gigaword')": Coefs(L_inf=0.0000000000, A=2.1808236698, alpha=0.0146927813),
        "('facebook/opt-6.7b', 'wikiword')": Coefs(L_inf=0.2715471457, A=1.7859035415, alpha=0.0422749399),
        "('google/mt5-base', 'flan')": Coefs(L_inf=0.0000000000, A=4.6211698165, alpha=0.0648699072),
        "('google/mt5-base', 'gigaword')": Coefs(L_inf=0.0000000000, A=3.4542367430, alpha=0.0321327577),
        "('google/mt5-base', 'wikiword')": Coefs(L_inf=0.0000000000, A=4.8802698557, alpha=0.0961777019),
        "('google/mt5-large', 'flan')": Coefs(L_inf=0.0000000000, A=3.5193429654, alpha=0.0536772855),
        "('google/mt5-large', 'gigaword')": Coefs(L_inf=0.0000000000, A=3.5889984642, alpha=0.0381545424),
        "('google/mt5-large', 'wikiword')": Coefs(L_inf=0.0000000000, A=3.9537507864, alpha=0.0789696371),
        "('gpt2', 'flan')": Coefs(L_inf=0.0000000000, A=7.7432486686, alpha=0.0903489876),
        "('gpt2', 'gigaword')": Coefs(L_inf=0.0000000000, A=7.4481233493, alpha=0.1368351252),
        "('gpt2', 'wikiword')": Coefs(L_inf=0.0000000000, A=4.0053815966, alpha=0.0698352636),
        "('t5-base', 'flan')": Coefs(L_inf=0.0000000000, A=3.5927162124, alpha=0.0538530120),
        "('t5-base', 'gigaword')": Coefs(L_inf=0.4187926280, A=1.8293722612, alpha=0.1684931683),
        "('t5-base', 'wikiword')": Coefs(L_inf=0.0000000000, A=2.2734524248, alpha=0.0452549072),
        "('t5-small', 'flan')": Coefs(L_inf=0.0000000000, A=4.1031621457, alpha=0.0541145502),
        "('t5-small', 'gigaword')": Coefs(L_inf=0.4134344504, A=1.7782418386, alpha=0.1373669844),
        "('t5-small', 'wikiword')": Coefs(L_inf=0.0000000000, A=2.8159260594, alpha=0.0518360448),
    },
    fallback=lambda groups: Coefs(L_inf=0.0, A=4.0, alpha=0.07),
    falls_with=("sft_data_size",),
    formula="L_inf + A*sft_data_size**-alpha",
    source=Source(
        reference="SLDBench leaderboard (Lin et al. 2025, arXiv:2507.21184)",
        evidence="in full precision from the published program, with which this law agrees to 1e-12",
        task="SFT Scaling Law",
        agent="opencode",
        model="GPT-5",
        r2_best=0.893342,
        r2_mean=0.845450,
        r2_min=0.756889,
        runs=5,
    ),
    golden=(
        ("('gpt2', 'flan')", {"sft_data_size": 4096.0}, {"sft_loss": 3.6521629163513376}),
        ("('t5-base', 'gigaword')", {"sft_data_size": 409600}, {"sft_loss": 0.6261205430467944}),
    ),
)
