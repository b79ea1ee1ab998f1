"""The command that searches for mixtures of domains."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlaws.catalogue import laws
from jaxlaws.cli.search import (
    Axis,
    Problems,
    Spread,
    certainty,
    check_answers,
    columns_of,
    draws_of,
    entries,
    extrapolated_columns,
    many,
    number_list,
    print_columns,
    result_names,
    search_arguments,
    show_all,
    write,
)
from jaxlaws.cli.shared import Command, chosen_law, fraction, output_format
from jaxlaws.law import Law, Var, variables
from jaxlaws.optimize.mixture import Mixture, optimize_mixture
from jaxlaws.tables import DataError

__all__ = ["add_commands"]

MIXTURE = """\
D,D,... is one number for all domains, one for each, or some by their number: 0.4 or 0.4,0.4,1,1,1 or 3=0.4,5=0.1.

A mixture is searched for each group, and each budget and strength if there are several. More problems come from FILE,
one per row, or as NAME=VALUE,VALUE,...: of the other inputs of the law, of budget, strength, and lower_3, upper_3,
weights_1, available_2 and so on. One problem is shown domain by domain, several as a row each; files and --json have
all that is known, and can be read by "jaxlaws predict". The multiplier of a bound is how much the loss changes when
the bound does, per unit.

The exit status is 1 if a search found no mixture or did not end at the best, and 2 for bad input."""

SUM_FORMS = "'1,2>=0.3', '1,2=0.3' or '0.3<=1,2<=0.5', in quotes"
NO_SLOPE = 1e-9  # what is left of the multiplier of a bound that an answer is not at


def add_commands(command: Command) -> None:
    """Add the commands to the parser."""
    sub = command(
        "mixture",
        _mixture,
        "find the proportions of domains with the least loss",
        "jaxlaws mixture domain_mixture --group 410M --upper 0.4\n"
        "jaxlaws mixture domain_mixture --group 410M --weights 1,1,0,0,2 --sum '1,2>=0.3' --in-range\n"
        "jaxlaws mixture domain_mixture --budget 1e10,3e10 --available 1=3e9,3=5e8 --max-epochs 4 -o mixtures.csv\n"
        "jaxlaws mixture domain_mixture --group 410M --draws draws.parquet\n"
        "jaxlaws mixture domain_mixture upper_3=0.1,0.2,0.3 --json | jaxlaws predict domain_mixture -",
        MIXTURE,
    )
    search_arguments(sub)

    def vector(name: str, metavar: str, about: str) -> None:
        sub.add_argument(f"--{name}", metavar=metavar, type=entries, help=about)

    vector("weights", "W,W,...", "minimise this sum of the outputs (default: their mean)")
    vector("targets", "T,T,...", "minimise the worst of output - target instead; 0 for the worst output")
    vector("lower", "D,D,...", "least proportion of a domain (default 0)")
    vector("upper", "D,D,...", "largest proportion of a domain (default 1)")
    sub.add_argument(
        "--sum",
        metavar="'D,D>=X'",
        action="append",
        type=_sum,
        default=[],
        dest="sums",
        help=f"bound the sum of the proportions of some domains: {SUM_FORMS}; may be given several times",
    )
    vector("available", "D,D,...", "tokens there are of a domain; needs --budget")
    sub.add_argument("--budget", metavar="B,...", type=number_list, help="tokens to train on in all; needs --available")
    vector("max-epochs", "D,D,...", "passes over the tokens of a domain, at most (default 1)")
    vector("prior", "D,D,...", "proportions to stay close to; needs --strength")
    sub.add_argument(
        "--strength", metavar="S,...", type=number_list, help="what 1 nat of divergence from the prior adds to the loss"
    )
    sub.add_argument(
        "--within",
        metavar="X",
        type=fraction,
        help="also find how far each proportion can move for 1%%, or 0.01, of the loss",
    )
    sub.add_argument("--unconstrained", action="store_true", help="also find what would be best without any bounds")


def _sum(text: str) -> tuple[str, list[str], float, float]:
    """A bound on a sum: as written, the domains, the least and the largest value."""
    parts = re.split("(<=|>=|=)", text)
    try:
        if len(parts) == 3:
            domains, sign, number = parts
            low = -math.inf if sign == "<=" else float(number)
            high = math.inf if sign == ">=" else float(number)
        else:
            lowest, sign, domains, other, highest = parts
            low, high = float(lowest), float(highest)
            if not sign == other == "<=":
                raise ValueError
        if math.isnan(low) or math.isnan(high):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form {SUM_FORMS}") from None
    return text, [word.strip() for word in re.split("[,+]", domains)], low, high


class _Search(NamedTuple):
    """What is searched for: the problems, and the arguments of `optimize_mixture` that say more of them."""

    law: Law
    domains: Axis
    outputs: Axis
    problems: Problems
    options: dict[str, Any]
    sums: Sequence[str]


def _mixture(args: argparse.Namespace) -> None:
    output_format(args)  # what is wrong with it is told before the search
    law = chosen_law(args, "--in-range" if args.in_range else "")
    simplex = _simplex(law)
    search = _search(law, simplex, args)
    problems, options = search.problems, search.options
    inputs = problems.inputs(law, searched=[simplex])
    try:
        best = jax.tree.map(np.asarray, optimize_mixture(law, problems.columns["group"], inputs, **options))
    except ValueError as error:
        raise DataError(problems.in_words(error)) from None
    unused = {"epochs": "budget", "penalty": "prior", "lowest": "within", "highest": "within"}
    unused |= {"unconstrained": "unconstrained", "unconstrained_loss": "unconstrained"}
    spread, drawn = _drawn(args, law, problems, options, inputs)
    fields = [v.name for v in variables(Mixture)]
    losses = [f"predicted_{name}" if name in fields else name for name in search.outputs.columns]
    names = {"proportions": search.domains.columns, "losses": losses}
    found = columns_of(
        best, names, ["extrapolated", *(name for name, option in unused.items() if option not in options)]
    )
    outside = {name: values.tolist() for name, values in extrapolated_columns(best.extrapolated).items()}
    del outside[f"extrapolated_{simplex.name}"]  # each of them has a column
    each = getattr(best.extrapolated, simplex.name).T.tolist()
    found |= outside | dict(zip(search.domains.numbered("extrapolated"), each, strict=True))
    if spread is not None:
        found |= _spread_columns(search, spread, drawn)
    named = result_names(law, found)
    found = {named[name]: values for name, values in found.items()}
    show = _show_one if len(problems) == 1 else _show_all
    write(args, problems.columns, found, lambda: show(search, best, spread, drawn))

    def none(i: int) -> str:
        names = [repr(text) for text, wrong in zip(search.sums, best.conflicting[i], strict=True) if wrong]
        return f"no mixture is within the bounds; loosen --sum {' or '.join(names)}"

    check_answers(problems, best.feasible, best.converged, best.steps, none)


def _drawn(
    args: argparse.Namespace, law: Law, problems: Problems, options: dict[str, Any], inputs: dict[str, Any]
) -> tuple[Spread | None, Any]:
    """The answers for draws of the coefficients, if these are given, and how far they are spread."""
    if args.draws is None:
        return None, None
    needed = {name: value for name, value in options.items() if name not in ("within", "unconstrained")}
    coefs = draws_of(args, law, problems.columns["group"])
    with many():
        found = jax.tree.map(np.asarray, optimize_mixture(law, coefs, inputs, **needed))
    return Spread(args.level, found), found


def _spread_columns(search: _Search, spread: Spread, drawn: Mixture) -> dict[str, list[Any]]:
    """How far the answers are spread, as columns."""
    found: dict[str, Any] = {}
    ends = dict(zip(("low", "high"), spread.ends(drawn.proportions), strict=True))
    ends |= {"at_lower": spread.share(drawn.at_lower), "at_upper": spread.share(drawn.at_upper)}
    for end, values in ends.items():
        found |= {f"{name}_{end}": x.tolist() for name, x in zip(search.domains.columns, values.T, strict=True)}
    found["loss_low"], found["loss_high"] = (end.tolist() for end in spread.ends(drawn.loss))
    return found | {"draws_answered": spread.answered.tolist()}


def _simplex(law: Law) -> Var:
    for v in variables(law.inputs):
        if v.total == 1:
            return v
    able = [other.name for other in laws.values() if any(v.total == 1 for v in variables(other.inputs))]
    raise DataError(f"{law.name} has no proportions of domains to search for; laws that have: {', '.join(able)}")


def _search(law: Law, simplex: Var, args: argparse.Namespace) -> _Search:
    domains = Axis(law, simplex.shape[0], simplex.column_names(law.sizes))
    outputs = Axis(law, law.output_shape[0] if law.output_shape else "output", law.output_columns)
    by_domain = {"lower": 0.0, "upper": 1.0, "available": math.inf, "max_epochs": 1.0, "prior": 0.0}
    by_output = {"weights": 0.0, "targets": 0.0}
    single = ("budget", "strength")

    numbers = [*single, *(name for v in variables(law.inputs) if v is not simplex for name in (v.name, *v.aliases))]
    numbers += [name for option in by_domain for name in domains.numbered(option)]
    numbers += [name for option in by_output for name in outputs.numbered(option)]
    problems = Problems(law, args, numbers, single)
    options: dict[str, Any] = {name: np.array(problems.columns[name]) for name in single if problems.has(name)}
    for axis, defaults in ((domains, by_domain), (outputs, by_output)):
        for name, default in defaults.items():
            given = getattr(args, name)
            if given is not None or problems.has(name):
                base = axis.vector(name.replace("_", "-"), [default] if given is None else given, default)
                options[name] = problems.vector(name, base, axis)

    for one, other in (("available", "budget"), ("budget", "available"), ("prior", "strength"), ("strength", "prior")):
        if one in options and other not in options:
            raise DataError(f"--{one} needs --{other}")
    if "max_epochs" in options and "available" not in options:
        raise DataError("--max-epochs needs --available and --budget")
    if "weights" in options and "targets" in options:
        raise DataError("give --weights or --targets, not both")
    if "lower" in options and (options["lower"] < 0).any():
        raise DataError("--lower must not be negative")
    if args.in_range:
        options["in_range"] = True
    if args.sums:
        options["sums"] = np.zeros((len(args.sums), domains.size))
        for row, (_, names, _, _) in zip(options["sums"], args.sums, strict=True):
            row[[domains.position("sum", name) for name in names]] = 1
        options["sum_lower"] = np.array([low for *_, low, _ in args.sums])
        options["sum_upper"] = np.array([high for *_, high in args.sums])
    if args.within is not None:
        options["within"] = np.array(args.within)
    if args.unconstrained:
        options["unconstrained"] = True
    return _Search(law, domains, outputs, problems, options, [text for text, *_ in args.sums])


# What people see.


def _show_one(search: _Search, best: Mixture, spread: Spread | None, drawn: Any) -> None:
    """One mixture, domain by domain."""
    law, domains, outputs, problems, options, sums = search
    best = jax.tree.map(lambda values: values[0], best)
    if not best.feasible:
        return
    print(problems.heading)
    at = _bounds(search, best)
    slopes = np.where(best.at_lower, best.lower_multipliers, best.upper_multipliers)
    cells = {domains.name: _count(domains.size), "proportion": list(map(_share, best.proportions))}
    if spread is not None:
        cells[f"{spread.level:.0%} of draws"] = spread.texts(drawn.proportions, _share)
        for end, text in (("at_lower", "at least"), ("at_upper", "at most")):
            share = spread.share(getattr(drawn, end))[0]
            if share.any():
                cells[f"{text} in"] = [f"{p:.0%}" if p else "" for p in share]
    if any(at):
        cells["bound"] = at
        cells["multiplier"] = [f"{slope:.3g}" if text else "" for slope, text in zip(slopes, at, strict=True)]
    if "budget" in options:
        cells["epochs"] = [f"{n:.3g}" if n > 0 else "" for n in best.epochs]
    if "within" in options:
        cells |= {"lowest": list(map(_share, best.lowest)), "highest": list(map(_share, best.highest))}
    if "unconstrained" in options:
        cells["without bounds"] = list(map(_share, best.unconstrained))
    by_output = {"loss": [f"{loss:.4f}" for loss in best.losses]}
    if "weights" in options or "targets" in options:
        by_output["weight"] = [f"{weight:.3g}" if abs(weight) > NO_SLOPE else "0" for weight in best.output_weights]
    beside = law.output_shape == (domains.name,)  # losses of the same domains
    print_columns({**cells, **(by_output if beside else {})})
    if law.output_shape and not beside:
        print()
        print_columns({outputs.name: _count(outputs.size), **by_output})
    if sums:
        changes = [f"{slope:.3g}" if abs(slope) > NO_SLOPE else "" for slope in best.sum_multipliers]
        values = list(map(_share, options["sums"] @ best.proportions))
        print()
        print_columns({"sum": sums, "value": values, "multiplier": changes})
    kind = "worst loss - target" if "targets" in options else "weighted loss" if "weights" in options else "loss"
    penalty = f" and penalty {best.penalty:.4g}" if "prior" in options else ""
    print(f"\n{kind} {best.loss:.6g}{penalty}; {certainty(best.gap, 'mixture')}")
    if spread is not None:
        (text,) = spread.texts(drawn.loss, lambda x: f"{x:.4f}")
        print(f"{kind} {text} in {spread.level:.0%} of the draws{_unanswered(spread)}")
    if "unconstrained" in options:
        print(f"without bounds it would be {best.unconstrained_loss:.6g}")


def _bounds(search: _Search, best: Mixture) -> list[str]:
    """The bound that each proportion is at."""

    def option(name: str, default: float) -> Any:
        return np.broadcast_to(search.options.get(name, default), (1, search.domains.size))[0]

    lower, upper, epochs = option("lower", 0), option("upper", 1), option("max_epochs", 1)
    if "in_range" in search.options:
        low, high = search.law.ranges_of(search.problems.columns["group"][0])[_simplex(search.law).name]
        lower, upper = np.maximum(lower, low), np.minimum(upper, high)
    share = epochs * option("available", math.inf) / search.options.get("budget", [1])[0]
    at_upper = [_epochs(n) if s < u else f"<= {u:g}" for n, s, u in zip(epochs, share, upper, strict=True)]
    at_lower = [f">= {low:g}" for low in lower]
    texts = zip(best.at_lower, at_lower, best.at_upper, at_upper, strict=True)
    return [below if is_low else above if is_high else "" for is_low, below, is_high, above in texts]


def _epochs(count: float) -> str:
    return "1 epoch" if count == 1 else f"{count:g} epochs"


def _unanswered(spread: Spread) -> str:
    share = 1 - spread.answered.min()
    return f"; {share:.1%} of them have no answer" if share else ""


def _show_all(search: _Search, best: Mixture, spread: Spread | None, drawn: Any) -> None:
    """Mixtures, a row each."""
    cells = {f"{search.domains.name} {i}": list(map(_share, ps)) for i, ps in enumerate(best.proportions.T, 1)}
    loss = "loss - target" if "targets" in search.options else result_names(search.law, ["loss"])["loss"]
    cells[loss] = [f"{loss:.4f}" for loss in best.loss]
    if spread is not None:
        low, high = spread.ends(drawn.loss)
        cells[f"{spread.level:.0%} of draws"] = [f"{a:.4f} to {b:.4f}" for a, b in zip(low, high, strict=True)]
    if "unconstrained" in search.options:
        cells["without bounds"] = [f"{loss:.4f}" for loss in best.unconstrained_loss]
    show_all(search.problems, cells, best.feasible, best.converged)
    good = best.feasible & best.converged
    if good.any():
        print(f"\n{certainty(best.gap[good], 'mixture')}")


def _count(size: int) -> list[str]:
    return [str(i) for i in range(1, size + 1)]


def _share(p: float) -> str:
    return f"{p:.4f}" if p >= 5e-5 or p < 1e-9 else f"{p:.0e}"  # below is what rounding leaves of 0
