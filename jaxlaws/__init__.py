"""Scaling laws of language models as fast, differentiable, batched JAX functions."""

# ruff: noqa: E402
from jaxlaws import startup

startup.end_when_interrupted()

from jaxlaws import sldbench as sldbench
from jaxlaws.catalogue import law_in, laws
from jaxlaws.compilation import compile, export
from jaxlaws.evaluation import (
    elasticity,
    gradient,
    hessian,
    in_range,
    jacobian,
    predict,
    value_and_gradient,
)
from jaxlaws.fitting.bootstrap import Draws, bootstrap, published_draws
from jaxlaws.fitting.comparison import Compared, Comparison, aicc, compare
from jaxlaws.fitting.estimation import Fit, fit
from jaxlaws.fitting.holdout import HoldOut, Level, ScaleOut, hold_out, leave_one_scale_out
from jaxlaws.fitting.intervals import Interval, predict_interval
from jaxlaws.fitting.storage import read_coefs, read_draws, read_law
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
    stack,
    var,
    variables,
)
from jaxlaws.optimize import costs as costs
from jaxlaws.optimize.allocation import Allocation, allocate
from jaxlaws.optimize.mixture import Mixture, optimize_mixture
from jaxlaws.plots import plot_allocation, plot_fit, plot_mixture
from jaxlaws.proportions import ProportionsWarning
from jaxlaws.ranges import RangeWarning
from jaxlaws.scores import Scores, evaluate
from jaxlaws.tables import DataError, MissingWarning, gradient_table, predict_table, read_table

__all__ = [
    "Allocation",
    "Compared",
    "Comparison",
    "DataError",
    "Draws",
    "Fit",
    "HoldOut",
    "Interval",
    "Law",
    "Level",
    "Matrix",
    "MissingWarning",
    "Mixture",
    "ProportionsWarning",
    "RangeWarning",
    "Scalar",
    "ScaleOut",
    "Scores",
    "Source",
    "UnknownNameError",
    "Var",
    "Vector",
    "aicc",
    "allocate",
    "as_dict",
    "bootstrap",
    "compare",
    "compile",
    "costs",
    "elasticity",
    "evaluate",
    "export",
    "fit",
    "gradient",
    "gradient_table",
    "hessian",
    "hold_out",
    "in_range",
    "jacobian",
    "law_in",
    "laws",
    "leave_one_scale_out",
    "mean",
    "optimize_mixture",
    "plot_allocation",
    "plot_fit",
    "plot_mixture",
    "predict",
    "predict_interval",
    "predict_table",
    "published_draws",
    "read_coefs",
    "read_draws",
    "read_law",
    "read_table",
    "record",
    "sldbench",
    "stack",
    "value_and_gradient",
    "var",
    "variables",
]

__version__ = "0.1.0"
