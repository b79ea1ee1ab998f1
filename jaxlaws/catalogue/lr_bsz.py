"""Loss of a dense language model from its learning rate, batch size, training tokens and parameters."""

from math import inf

import jax.numpy as jnp

from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import log, power


@record
class Inputs:
    """Inputs of the law."""

    lr: Scalar = var("peak learning rate", range=(0.0002441, 0.0221))
    bsz: Scalar = var("batch size", unit="sequences of 2048 tokens", range=(16, 2048))
    data_size: Scalar = var("training tokens", unit="tokens", range=(2e9, 1e11), aliases=("tokens", "D"))
    non_embedding_param_size: Scalar = var(
        "parameters without embeddings", unit="parameters", range=(59968512, 1073741824), aliases=("params", "N")
    )


@record
class Coefs:
    """Coefficients of the law."""

    A: Scalar = var("weight of non_embedding_param_size", unit="nat/token", bounds=(0, inf))
    B: Scalar = var("weight of data_size", unit="nat/token", bounds=(0, inf))
    C_lr: Scalar = var("curvature in log lr", unit="nat/token", bounds=(0, inf))
    C_both: Scalar = var("curvature in log lr and log bsz", unit="nat/token")
    C_bsz: Scalar = var("curvature in log bsz", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of non_embedding_param_size", bounds=(0, 10), start=(0.05, 0.4))
    beta: Scalar = var("exponent of data_size", bounds=(0, 10), start=(0.1, 0.6))
    kappa: Scalar = var("exponent of data_size in the curvatures", bounds=(-2, 2), start=(0, 0.5))
    tilt: Scalar = var("how much more a high lr costs than a low one", bounds=(-2, 2), start=(0, 0.5))
    log_lr: Scalar = var("log of the best lr, in 1e-3", bounds=(-10, 10), start=(0, 1))
    lr_params: Scalar = var("exponent of non_embedding_param_size in the best lr", bounds=(-3, 3), start=(-1, 0))
    lr_data: Scalar = var("exponent of data_size in the best lr", bounds=(-3, 3), start=(0, 0.5))
    log_bsz: Scalar = var("log of the best bsz, in 1e2", bounds=(-10, 10), start=(0.5, 2))
    bsz_data: Scalar = var("exponent of data_size in the best bsz", bounds=(-3, 3), start=(0.2, 0.8))


@record
class Outputs:
    """Outputs of the law."""

    lm_loss: Scalar = var("training loss at the end, smoothed", unit="nat/token")


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    size = x.non_embedding_param_size / 1e9
    log_size, log_data = log(size), log(x.data_size / 1e11)
    u = log(x.lr / 1e-3) - (c.log_lr + c.lr_params * log_size + c.lr_data * log_data)
    w = log(x.bsz / 1e2) - (c.log_bsz + c.bsz_data * log_data)
    best = c.A * power(size, -c.alpha) + c.B * jnp.exp(-c.beta * (log_data - log_size / 2))
    bowl = c.C_lr * u**2 + c.C_both * u * w + c.C_bsz * w**2
    return best + bowl * jnp.exp(c.tilt * u - c.kappa * log_data)


BEST_LR = "log_lr + lr_params*log(non_embedding_param_size/1e9) + lr_data*log(data_size/1e11)"
U = f"(log(lr/1e-3) - ({BEST_LR}))"
W = "(log(bsz/1e2) - (log_bsz + bsz_data*log(data_size/1e11)))"

COVARIANCE = (
    (1.69481e-05,),
    (-1.509428e-05, 1.379987e-05),
    (-6.026049e-07, 4.427333e-07, 2.355006e-07),
    (4.674626e-07, -3.53868e-07, -7.880564e-08, 1.163835e-07),
    (-4.049374e-07, 2.894964e-07, 7.283411e-08, -6.669466e-08, 1.217994e-07),
    (-1.173214e-06, 9.488734e-07, 2.797253e-08, -3.934426e-08, 2.094177e-08, 1.370911e-07),
    (1.769101e-05, -1.64137e-05, -3.214889e-07, 2.955864e-07, -1.933393e-07, -1.105221e-06, 2.035278e-05),
    (2.053349e-05, -1.652664e-05, -3.498354e-06, 2.270637e-06, -3.047351e-06, -1.285626e-06, 1.233829e-05,
     0.0001288492),
    (4.708534e-06, -4.749132e-06, 1.741508e-06, -1.336518e-07, 6.58099e-07, -1.548171e-07, 7.334336e-06,
     -2.591617e-05, 0.0001081104),
    (8.745979e-06, -8.032096e-06, 2.802437e-06, -1.563418e-06, 3.485403e-06, -1.223169e-06, 1.348422e-05,
     -8.862344e-05, 0.0001743775, 0.0007507366),
    (1.6803e-05, -1.445634e-05, 6.048425e-07, -4.174883e-08, 5.2189e-07, -2.093114e-06, 1.888956e-05, -5.909455e-06,
     2.395221e-05, 0.0002015734, 0.0001777423),
    (-1.17935e-05, 1.077691e-05, 1.323469e-07, -9.163005e-07, 1.197715e-06, 8.431236e-07, -1.194906e-05,
     -4.478104e-05, 8.888679e-06, 0.0001333362, -1.355819e-05, 7.74216e-05),
    (-3.059161e-06, 3.181863e-06, -2.114656e-07, -1.118977e-07, -3.021281e-07, 5.060113e-07, -3.756985e-06,
     -1.580618e-06, 3.716181e-05, 0.000175238, -1.381713e-05, 6.078596e-05, 0.0002885933),
    (-5.221846e-06, 4.574612e-06, -4.371784e-08, -4.214345e-07, -1.021555e-07, 6.657403e-07, -4.404872e-06,
     -1.396392e-05, 3.320739e-06, 4.074699e-05, -1.970407e-05, 3.287224e-05, 0.0001175388, 6.631614e-05),
)  # fmt: skip

LAW = Law(
    title="loss from learning rate and batch size",
    question="Which learning rate and batch size?",
    advice=(
        "The best values are exp(log_lr)*1e-3*(non_embedding_param_size/1e9)**lr_params*(data_size/1e11)**lr_data and "
        "exp(log_bsz)*1e2*(data_size/1e11)**bsz_data. It has no irreducible loss, which these runs do not tell. Runs "
        "at rates that are far too high scatter by more than it can say."
    ),
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={
        "all_data": Coefs(
            A=1.906677494209157,
            B=0.1795930068823579,
            C_lr=0.018147130419959467,
            C_both=-0.01113143401905547,
            C_bsz=0.01516457377797191,
            alpha=0.09087305478539832,
            beta=0.34752180478248157,
            kappa=0.15721952502436334,
            tilt=0.2755370861043429,
            log_lr=0.6006633352725608,
            lr_params=-0.48702704844268074,
            lr_data=0.2408964865564533,
            log_bsz=1.718633380316981,
            bsz_data=0.5790318618780722,
        ),
    },
    fallback=lambda groups: groups["all_data"],
    formula="A*(non_embedding_param_size/1e9)**-alpha"
    " + B*exp(-beta*(log(data_size/1e11) - log(non_embedding_param_size/1e9)/2))"
    f" + (C_lr*{U}*{U} + C_both*{U}*{W} + C_bsz*{W}*{W})*exp(tilt*{U} - kappa*log(data_size/1e11))",
    objective="huber_log",
    source=Source(
        reference="form chosen and fitted here, after Li et al. 2025, arXiv:2503.04715, on the training runs of "
        "SLDBench (Lin et al. 2025, arXiv:2507.21184)",
        task="Learning Rate and Batch Size Scaling Law",
        evidence=(
            "2702 runs, R2 0.9850. Fitted without those of 1.07e9 parameters on more than 5e10 tokens, R2 on these is "
            "0.947; without those of 1.07e9 parameters on more than 1e10 tokens, 0.959."
        ),
        covariance=COVARIANCE,
    ),
    ranges={None: {"data_size/non_embedding_param_size": (1.862, 465.9)}},
    golden=(
        (
            "all_data",
            {"lr": 0.0003453, "bsz": 736, "data_size": 100000000000.0, "non_embedding_param_size": 214663680},
            {"lm_loss": 2.389067992256158},
        ),
        (
            "all_data",
            {"lr": 0.002, "bsz": 512, "data_size": 100000000000.0, "non_embedding_param_size": 1073741824},
            {"lm_loss": 2.0767603988295726},
        ),
    ),
)
