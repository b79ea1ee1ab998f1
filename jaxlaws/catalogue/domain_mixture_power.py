"""Losses on five domains of a model trained on a mixture of them, each a power of its own domain's share."""

import math

import jax.numpy as jnp
import numpy as np

from jaxlaws.law import Law, Matrix, Scalar, Source, Vector, mean, record, var
from jaxlaws.numerics import log, matvec


@record
class Inputs:
    """Inputs of the law. The domains are academic, prose, dialogue, symbolic and internet text."""

    proportions: Vector = var(
        "share of each domain in the training tokens",
        shape="domain",
        columns="proportion_domain_{}",
        range=((0.0, 0.0, 0.0, 0.0, 0.0), (0.5, 0.1875, 0.09375, 0.25, 0.75)),
        above=-1e-6,  # 0 and what rounding leaves of it
        missing=0.0,
        total=1.0,
    )


# As proportions sum to 1, a constant would be one with a number that is added to all of a row of w.
@record
class Coefs:
    """Coefficients of the law; the matrix has a row per loss and a column per proportion."""

    alpha: Vector = var("exponent of the own share", shape="domain", bounds=(0, math.inf), start=(0.01, 0.2))
    w: Matrix = var("weight of each proportion", unit="log(nat/token)", shape=("domain", "domain"), start=(0, 1.5))
    eps: Scalar = var("what other domains are worth", shared=True, bounds=(1e-4, 0.1), start=(1e-3, 0.02))


@record
class Outputs:
    """Outputs of the law."""

    loss: Vector = var("validation loss on each domain", unit="nat/token", shape="domain", columns="loss_domain_{}")


def loss(c: Coefs, x: Inputs) -> Vector:
    """The losses of one configuration."""
    p = x.proportions
    return jnp.exp(matvec((c.w, p)) - c.alpha * log(p + c.eps))


EPS = 0.002193558768334776

# fmt: off
GROUPS = {  # parameters of the model: alpha, w
    "160M": (
        [0.045059011174866055, 0.005843813925105655, 0.03897075461160724, 0.07105882811190294, 0.01696800001527011],
        [
            [0.7906392430819291, 0.8698124233009975, 0.8868840646359245, 0.8415104895098331, 0.8363229663742532],
            [1.2445163602840783, 1.0773915591673409, 1.2084522246255496, 1.2551241759105463, 1.1920741819500946],
            [0.9929049940922668, 0.9404866111553234, 0.9055099459996435, 0.9830765433385527, 0.9328271315632221],
            [0.24198435171438523, 0.29814078015089884, 0.2354784561760527, 0.11449616115663086, 0.23037788245378635],
            [1.1808528222019161, 1.1680461690024595, 1.1825247821157008, 1.1735611372093429, 1.1185413146931082],
        ],
    ),
    "305M": (
        [0.0473042862254171, 0.005211395099245782, 0.04428815496229959, 0.07365876493257763, 0.018883827589468317],
        [
            [0.7336542335006198, 0.7975797282422097, 0.836381029816556, 0.7682165338257999, 0.7685580591494902],
            [1.2006048473749105, 1.0148526887022733, 1.1651422232062596, 1.2121220664897543, 1.1462572710229086],
            [0.917874258086976, 0.8777971964940048, 0.9330151191426541, 0.9147063581354024, 0.8584469777031145],
            [0.15586189541638112, 0.20216448540037785, 0.16066488535758658, 0.04209936086507975, 0.1474886938936779],
            [1.1243668940266838, 1.1115211384896595, 1.1313643908111883, 1.1142431741103576, 1.063802603789953],
        ],
    ),
    "410M": (
        [0.04809206513121477, 0.005621948048064171, 0.0462223679604025, 0.07321474208042726, 0.019828418484554085],
        [
            [0.7034905475109414, 0.7858608824138114, 0.780739835207622, 0.7528290141055083, 0.7378678904728775],
            [1.1764520404401706, 1.0042108244421846, 1.1240495875447074, 1.194978088526852, 1.119113296209295],
            [0.8911813252485224, 0.8502502248206104, 0.9102952034494212, 0.8838798175902055, 0.8268948675701422],
            [0.116232472900885, 0.21000992922124376, 0.14057718177617576, 0.002880072514254911, 0.11667548744792225],
            [1.097273599326181, 1.09733875607083, 1.0802038092291328, 1.0966689163268861, 1.0363013409984936],
        ],
    ),
    "70M": (
        [0.04218896649662716, 0.005146862436917336, 0.03682709335209343, 0.06939868340984731, 0.01561138282311133],
        [
            [0.9089072733629737, 0.9860406505769088, 1.0187341986076952, 0.9641303325019103, 0.9657636688847991],
            [1.3381850508959339, 1.1664479329559259, 1.2951043525254309, 1.345753858712019, 1.2947470298843002],
            [1.097685510186052, 1.040381010865666, 0.9990038569290903, 1.0729652867842416, 1.0405753714524195],
            [0.39187701901085403, 0.44100961109398074, 0.4077470558055865, 0.2951920513954844, 0.38573669191438087],
            [1.2822246376936366, 1.2638689866942692, 1.2747524629001747, 1.2705659212420874, 1.228910804728583],
        ],
    ),
}
# fmt: on

LAW = Law(
    title="losses on five domains, powers of their share",
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={name: Coefs(alpha=np.array(alpha), w=np.array(w), eps=EPS) for name, (alpha, w) in GROUPS.items()},
    fallback=mean,
    curvature="convex",  # the exponent is, as alpha is not negative
    formula="exp(w @ proportions - alpha*log(proportions + eps))",
    objective="relative",
    source=Source(
        reference="form chosen and fitted here, on the training runs of SLDBench (Lin et al. 2025, arXiv:2507.21184)"
    ),
    golden=(
        (
            "410M",
            {
                "proportion_domain_1": 0.5,
                "proportion_domain_2": 0.1875,
                "proportion_domain_3": 0.0625,
                "proportion_domain_4": 0.0625,
                "proportion_domain_5": 0.1875,
            },
            {
                "loss_domain_1": 2.1520412859241813,
                "loss_domain_2": 3.1287518086382455,
                "loss_domain_3": 2.7148928261669263,
                "loss_domain_4": 1.389306427999193,
                "loss_domain_5": 3.057845376498119,
            },
        ),
        (
            "70M",
            {
                "proportion_domain_1": 0.0,
                "proportion_domain_2": 0.0,
                "proportion_domain_3": 0.0,
                "proportion_domain_4": 0.25,
                "proportion_domain_5": 0.75,
            },
            {
                "loss_domain_1": 3.399559597450967,
                "loss_domain_2": 3.8152607573210657,
                "loss_domain_3": 3.5756135639536,
                "loss_domain_4": 1.5820180371782915,
                "loss_domain_5": 3.4686660837507968,
            },
        ),
    ),
)
