"""How sure coefficients are: fits to resampled runs, or what was published of their errors."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxlaws.arguments import check_kind, check_law
from jaxlaws.fitting.estimation import Fit, check_level, problem, records
from jaxlaws.fitting.levenberg_marquardt import Found
from jaxlaws.fitting.starts import solve_all
from jaxlaws.law import Law, UnknownNameError, variables

__all__ = ["Draws", "bootstrap", "published_draws"]

WEIGHTS = 1 << 24  # rows of all groups times draws that are in memory together, as weights of 8 bytes


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """Coefficients of a law as samples of what they may be.

    Attributes:
        law: The law.
        coefs: For each group a record whose fields have the draws as their first axis. Predictions and searches take it
            as coefficients, and have an answer per draw. Draws of groups with shared coefficients belong together.
        best: The coefficients of each group that the draws are about: those fitted to all runs.
        converged: The share of the draws whose fit converged, per group; NaN where that is not known.
        flags: What is to be known of the fit of each group before one relies on it.
        fit: The fit that was resampled, if it is known.
    """

    law: Law
    coefs: Mapping[str, Any]
    best: Mapping[str, Any]
    converged: Mapping[str, float]
    flags: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    fit: Fit | None = dataclasses.field(default=None, repr=False)

    def __repr__(self) -> str:
        count = len(jax.tree.leaves(next(iter(self.coefs.values())))[0])
        groups = f"{len(self.coefs)} groups" if len(self.coefs) > 1 else f"group {next(iter(self.coefs))!r}"
        share = min(self.converged.values(), default=1.0)
        lost = f", {share:.0%} of them converged" if share < 1 else ""  # not where it is not known
        return f"<Draws of {self.law.name}: {groups}, {count} draws{lost}>"

    @property
    def stderr(self) -> dict[str, Any]:
        """Standard errors of the coefficients: the standard deviation over the draws, per group."""
        return {name: _over_draws(lambda x: np.std(x, axis=0, ddof=1), c) for name, c in self.coefs.items()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the draws to a file: see [`write_draws`][jaxlaws.fitting.storage.write_draws]."""
        from jaxlaws.fitting.storage import write_draws

        write_draws(self, path)

    def interval(self, level: float = 0.9) -> dict[str, tuple[Any, Any]]:
        """Between which values each coefficient lies in a share `level` of the draws, per group, as two records."""
        tail = (1 - check_level(level)) / 2
        return {
            name: (
                _over_draws(lambda x: np.quantile(x, tail, axis=0), c),
                _over_draws(lambda x: np.quantile(x, 1 - tail, axis=0), c),
            )
            for name, c in self.coefs.items()
        }


def _over_draws(statistic: Any, coefs: Any) -> Any:
    return type(coefs)(**{v.name: statistic(getattr(coefs, v.name)) for v in variables(type(coefs))})


def bootstrap(fit: Fit, draws: int = 1000, *, clusters: Any = None, seed: int = 0) -> Draws:
    """Fits to runs drawn again, with replacement, from the runs of each group.

    Every fit begins at that of all runs. All are done together, in one compiled program.

    Args:
        fit: The fit.
        draws: How many times the runs are drawn.
        clusters: What is drawn: by default single runs; or all runs with the same value of an input, by its name, or
            of an array with one value per run, as where several runs share a random seed or a data order.
        seed: Another seed gives other draws.

    Returns:
        The coefficients of every draw.

    Raises:
        ValueError: There are fewer than 2 draws, or there are no such clusters.

    Example:
        >>> import numpy as np, jaxlaws as jl
        >>> law = jl.laws["sft"]
        >>> size = np.geomspace(200, 4e5, 12)
        >>> noise = 1 + 0.01 * np.random.default_rng(0).normal(size=12)
        >>> fit = jl.fit(law, {"sft_data_size": size, "sft_loss": (1 + 5 * size**-0.3) * noise})
        >>> draws = jl.bootstrap(fit, 200)
        >>> law(draws.coefs["all_data"], sft_data_size=1e6).shape
        (200,)
    """
    check_kind(fit, Fit, "a fit, as jl.fit gives one,")
    if draws < 2:
        raise ValueError(f"there must be at least 2 draws, not {draws}")
    runs, form = fit.runs, fit.form
    random = np.random.default_rng(seed)
    counts = np.zeros((draws, len(runs.group)), np.min_scalar_type(len(runs.group)))
    labels = _labels(fit, clusters)
    for group in range(len(runs.groups)):
        mine = np.flatnonzero((runs.group == group) & (runs.weights > 0))
        _, member = np.unique(labels[mine], return_inverse=True)
        several = member.max(initial=0) + 1
        counts[:, mine] = random.multinomial(several, np.full(several, 1 / several), draws)[:, member]
    data, measured, weight = problem(runs, form, fit.fixed)
    values = {v.name: np.stack([getattr(c, v.name) for c in fit.coefs.values()]) for v in variables(fit.law.coefs)}
    x = np.moveaxis(form.numbers(values), -1, 2)[..., None]  # [number, group, part, 1]
    several = max(1, WEIGHTS // runs.places.size)
    pieces = []
    for i in range(0, draws, several):
        some = np.moveaxis(counts[i : i + several, runs.places], 0, 1)[:, None]  # [group, 1, draw, row]
        each = weight * np.repeat(some, weight.shape[-1] // some.shape[-1], -1)
        start = np.broadcast_to(x, (*x.shape[:3], some.shape[2]))
        pieces.append(solve_all(form, data, measured, each, start, warm=True))
    found = Found(*(np.concatenate([getattr(piece, name) for piece in pieces], -1) for name in Found._fields))
    fixed = {name: np.repeat(value[:, None], draws, 1) for name, value in fit.fixed.items()}
    converged = np.broadcast_to(found.converged, (len(runs.groups), *found.converged.shape[1:]))
    return Draws(
        law=fit.law,
        best=fit.coefs,
        flags=fit.flags,
        coefs=dict(zip(runs.groups, records(form, found.x, fixed), strict=True)),
        converged={name: float(converged[i].all(0).mean()) for i, name in enumerate(runs.groups)},
        fit=fit,
    )


def _labels(fit: Fit, clusters: Any) -> np.ndarray:
    """What is drawn together, as a label of each run."""
    runs = fit.runs
    if clusters is None:
        return np.arange(len(runs.group))
    if isinstance(clusters, str):
        known = [v.name for v in variables(fit.law.inputs) if not v.shape]
        if clusters not in known:
            raise ValueError(f"{fit.law.name} has no input {clusters!r} to tell clusters; it has {', '.join(known)}")
        return np.asarray(getattr(runs.inputs, clusters))
    labels = np.asarray(clusters)
    if labels.shape != runs.group.shape:
        raise ValueError(f"clusters must have one label for each of {len(runs.group)} runs, not shape {labels.shape}")
    return labels


def published_draws(law: Law, group: str | None = None, draws: int = 2000, *, seed: int = 0) -> Draws:
    """Coefficients of a law as the covariance that its group comes with says that they may be.

    The errors are normal; those of coefficients with large errors are normal in the logarithm. The draws have exactly
    that covariance, so that few of them do. Near the runs, where the errors of the coefficients cancel, what is not
    normal in them does not: intervals are up to twice as wide there as those of the fit, and right where they are
    asked for most, beyond the runs.

    Args:
        law: A law with groups whose errors are known: `jaxlaws show LAW` prints them.
        group: Name of a group; by default all those whose errors are known, each drawn by itself.
        draws: How many.
        seed: Another seed gives other draws.

    Returns:
        The draws, as those of [`bootstrap`][jaxlaws.bootstrap]; `save` writes them to a file that the commands read.

    Raises:
        UnknownNameError: The law has no such group.
        ValueError: The errors of the group, or of all groups, are not known.

    Example:
        >>> import numpy as np, jaxlaws as jl
        >>> law = jl.laws["chinchilla"]
        >>> draws = jl.published_draws(law, "besiroglu2024")
        >>> plan = jl.allocate(law, draws.coefs["besiroglu2024"], budget=1e22)
        >>> print(np.quantile(plan.inputs.tokens / plan.inputs.params, [0.05, 0.95]).round())  # far from sure
        [14. 31.]
    """
    check_law(law)
    if group is not None and group not in law.groups:
        raise UnknownNameError.of(f"group of {law.name}", group, law.groups)
    known = [name for name in law.groups if law.covariance_of(name) is not None]
    chosen = known if group is None else [name for name in known if name == group]
    if not chosen:
        whose = "any group" if group is None else f"group {group!r}"
        hint = f"; those of {', '.join(map(repr, known))} are" if known else ""
        apart = any(law.stderr_of(name) is not None for name in law.groups if group in (None, name))
        missing = "not known" if not apart else "known one by one, and not how they vary together"
        raise ValueError(f"{law.name}: the errors of {whose} are {missing}{hint}")
    return Draws(
        law=law,
        coefs={name: _normal(law, name, draws, seed) for name in chosen},
        best={name: law.groups[name] for name in chosen},
        converged=dict.fromkeys(chosen, float("nan")),
    )


def _normal(law: Law, group: str, draws: int, seed: int) -> Any:
    """Draws of the coefficients of a group, whose mean and covariance are exact."""
    logs, best, covariance = law.source_of(group).logs, law.groups[group], law.covariance_of(group)
    assert covariance is not None
    if draws <= len(covariance):
        raise ValueError(f"there must be more than {len(covariance)} draws, one for each coefficient, not {draws}")
    plain = np.random.default_rng(seed).normal(size=(draws, len(covariance)))
    plain -= plain.mean(axis=0)
    plain = plain @ np.linalg.inv(np.linalg.cholesky(np.cov(plain.T))).T
    errors = vars(law.unflattened(plain @ np.linalg.cholesky(covariance).T))
    values = {name: np.asarray(getattr(best, name)) for name in errors}
    return law.coefs(**{n: values[n] * np.exp(e) if n in logs else values[n] + e for n, e in errors.items()})
