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
    data_size: Scalar = var("training tokens", unit="tokens", range=(2e9, 1e11))
    non_embedding_param_size: Scalar = var(
        "parameters without embeddings", unit="parameters", range=(59968512, 1073741824)
    )


@record
class Coefs:
    """Coefficients of the law."""

    A: Scalar = var("weight of non_embedding_param_size", unit="nat/token", bounds=(0, inf))
    B: Scalar = var("weight of data_size", unit="nat/token", bounds=(0, inf))
    C_lr: Scalar = var("curvature in log lr", unit="nat/token", bounds=(0, inf))
    C_both: Scalar = var("curvature in log lr and log bsz", unit="nat/token")
    C_bsz: Scalar = var("curvature in log bsz", unit="nat/token", bounds=(0, inf))
    alpha: Scalar = var("exponent of non_embedding_param_size", bounds=(0, inf), start=(0.05, 0.4))
    beta: Scalar = var("exponent of data_size", bounds=(0, inf), start=(0.1, 0.6))
    kappa: Scalar = var("exponent of data_size in the curvatures", start=(0, 0.5))
    tilt: Scalar = var("how much more a high lr costs than a low one", start=(0, 0.5))
    log_lr: Scalar = var("log of the best lr, in 1e-3", start=(0, 1))
    lr_params: Scalar = var("exponent of non_embedding_param_size in the best lr", start=(-1, 0))
    lr_data: Scalar = var("exponent of data_size in the best lr", start=(0, 0.5))
    log_bsz: Scalar = var("log of the best bsz, in 1e2", start=(0.5, 2))
    bsz_data: Scalar = var("exponent of data_size in the best bsz", start=(0.2, 0.8))


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
        stderr=Coefs(
            A=0.00412,
            B=0.00371,
            C_lr=0.000485,
            C_both=0.000341,
            C_bsz=0.000349,
            alpha=0.00037,
            beta=0.00451,
            kappa=0.0114,
            tilt=0.0104,
            log_lr=0.0274,
            lr_params=0.0133,
            lr_data=0.0088,
            log_bsz=0.017,
            bsz_data=0.00814,
        ),
    ),
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
