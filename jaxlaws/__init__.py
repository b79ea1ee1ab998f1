"""Scaling laws of language models as fast, differentiable, batched JAX functions."""

from jaxlaws import sldbench as sldbench
from jaxlaws.catalogue import laws
from jaxlaws.evaluation import (
    elasticity,
    gradient,
    hessian,
    in_range,
    jacobian,
    predict,
    stack,
    value_and_gradient,
)
from jaxlaws.law import (
    Law,
    Matrix,
    Scalar,
    Source,
    UnknownNameError,
    Var,
    Vector,
    as_dict,
    mean,
    record,
    var,
    variables,
)

__all__ = [
    "Law",
    "Matrix",
    "Scalar",
    "Source",
    "UnknownNameError",
    "Var",
    "Vector",
    "as_dict",
    "elasticity",
    "gradient",
    "hessian",
    "in_range",
    "jacobian",
    "laws",
    "mean",
    "predict",
    "record",
    "sldbench",
    "stack",
    "value_and_gradient",
    "var",
    "variables",
]

__version__ = "0.1.0"
