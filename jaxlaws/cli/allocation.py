"""The command that searches for sizes and amounts of data: what to do with a budget, or what a loss costs."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxlaws.catalogue import module_in
from jaxlaws.cli.search import (
    Axis,
    Problems,
    Spread,
    certainty,
    check_answers,
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
from jaxlaws.optimize import costs
from jaxlaws.optimize.allocation import allocate
from jaxlaws.tables import DataError

__all__ = ["add_commands"]

ALLOCATE = """\
Inputs that are given as NAME=VALUE stay as they are, and the others are searched for. A row is printed for each group,
budget or target, and for all combinations of NAME=VALUE,VALUE,... of inputs, of budget, max_epochs,
min_tokens_per_param, the numbers of the cost, and lower_tokens, upper_tokens and so on; or FILE has such columns, and a
problem per row. The multiplier is how much the loss changes with the logarithm of the budget, or the logarithm of the
cost with the target.

The costs:

{costs}

The exit status is 1 if a search found nothing or did not end at the best, and 2 for bad input."""


RATIOS = ("max_epochs", "min_tokens_per_param")  # bounds of the ratio of two inputs


def add_commands(command: Command) -> None:
    """Add the commands to the parser."""
    sub = command(
        "allocate",
        _allocate,
        "find the inputs with the least loss for a budget, or the least cost of a loss",
        "jaxlaws allocate chinchilla --budget 1e22,1e23,1e24 --group besiroglu2024\n"
        "jaxlaws allocate chinchilla --target 2.1 --lower tokens=1e9\n"
        "jaxlaws allocate data_constrained --budget 1e22 unique_tokens=1e10 --max-epochs 4 --within 0.1%\n"
        "jaxlaws allocate chinchilla --budget 1e22 --cost inference --inference-tokens 0,1e12 --json\n"
        "jaxlaws allocate chinchilla --budget 1e22 --min-tokens-per-param 0,100,1000\n"
        "jaxlaws allocate moe --budget 1e9 --cost moe-active --upper num_experts=64 --power-of-two num_experts\n"
        "jaxlaws allocate sparsity --budget 1e22 --upper params=1e11,active_share=1\n"
        "jaxlaws allocate fine_grained_moe --group moe --budget 1e22 --cost fine-grained --experts 64\n"
        "jaxlaws allocate precision --budget 1e22 --cost bits activation_bits=16 kv_bits=16",
        ALLOCATE.format(costs="\n".join(f"  {_option(name):24}{_first_line(name)}" for name in costs.__all__)),
    )
    search_arguments(sub)
    limit = sub.add_mutually_exclusive_group()
    limit.add_argument("--budget", metavar="C,...", type=number_list, help="the most it may cost; FLOP by default")
    limit.add_argument("--target", metavar="L,...", type=number_list, help="reach this loss, at the least cost")
    about = "what is paid for: one of the costs above, a word that only one of them has, or FILE.py:FUNCTION (training)"
    sub.add_argument("--cost", metavar="COST", type=_cost, help=about)
    for name, users in _numbers_of_costs().items():
        about = f"{_about(name, users)} (for {', '.join(map(_option, users))})"
        sub.add_argument(f"--{_option(name)}", metavar="X,...", type=number_list, help=about)
    sub.add_argument("--lower", metavar="NAME=X,...", type=entries, help="least values of inputs")
    sub.add_argument("--upper", metavar="NAME=X,...", type=entries, help="largest values of inputs")
    sub.add_argument("--max-epochs", metavar="X,...", type=number_list, help="passes over unique_tokens, at most")
    about = "tokens are at least so many times the parameters: small models that are cheap to serve"
    sub.add_argument("--min-tokens-per-param", metavar="X,...", type=number_list, help=about)
    sub.add_argument("--integer", metavar="NAME,...", type=_names, help="inputs that must be whole numbers")
    sub.add_argument("--power-of-two", metavar="NAME,...", type=_names, help="inputs that must be powers of two")
    sub.add_argument("--weights", metavar="W,W,...", type=entries, help="weights of the outputs (default: their mean)")
    sub.add_argument(
        "--within",
        metavar="X",
        type=fraction,
        help="also find how far each input can move for 1%%, or 0.01, of the loss",
    )


def _first_line(cost: str) -> str:
    """What a cost is, in a few words."""
    return re.sub(r" \(.*|\.$", "", (inspect.getdoc(getattr(costs, cost)) or "").splitlines()[0])


def _about(name: str, users: list[str]) -> str:
    """What a number of costs is, from the first of them that says so."""
    for cost in users:
        found = re.search(
            rf"^    {name}: (?!See )(.*?[.;])(?=\s|$)", inspect.getdoc(getattr(costs, cost)) or "", re.M | re.S
        )
        if found:
            return re.sub(r"\s+", " ", found[1]).rstrip(".;").replace("%", "%%")
    raise LookupError(name)


def _names(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _option(name: str) -> str:
    return name.replace("_", "-")


def _cost(text: str) -> str | Callable[[Any], Any]:
    """The name of a cost, from that or from a word of it; or a function in a file."""
    path, colon, function = text.rpartition(":")
    if colon and path.endswith(".py"):
        return _own_cost(path, function)
    name = text.replace("-", "_")
    found = [known for known in costs.__all__ if name == known] or [k for k in costs.__all__ if name in k.split("_")]
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(map(_option, costs.__all__))}")
    return found[0]


def _own_cost(path: str, name: str) -> Callable[[Any], Any]:
    """A function in a file."""
    try:
        found: Callable[[Any], Any] | None = getattr(module_in(path), name, None)
    except Exception as error:  # a file may raise anything
        raise argparse.ArgumentTypeError(f"{path}: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise argparse.ArgumentTypeError(f"{path} has no function called {name!r}")
    return found


def _parameters(cost: str) -> dict[str, bool]:
    """The numbers that a cost is made with, and whether it needs them; none where it is a function of the inputs."""
    found = inspect.signature(getattr(costs, cost)).parameters.values()
    return {p.name: p.default is inspect.Parameter.empty for p in found if p.name != "inputs"}


def _numbers_of_costs() -> dict[str, list[str]]:
    """Which costs take each number."""
    found: dict[str, list[str]] = {}
    for cost in costs.__all__:
        for name in _parameters(cost):
            found.setdefault(name, []).append(cost)
    return found


def _allocate(args: argparse.Namespace) -> None:
    output_format(args)  # what is wrong with it is told before the search
    law = chosen_law(args, "--in-range" if args.in_range else "")
    inputs = variables(law.inputs)
    parameters = list(_numbers_of_costs())
    of_problems = ["budget", "target", *RATIOS, *parameters]
    numbers = [*of_problems, *(name for v in inputs for name in (v.name, *v.aliases))]
    numbers += [f"{kind}_{v.name}" for kind in ("lower", "upper") for v in inputs]
    problems = Problems(law, args, numbers, of_problems)
    free = [v for v in inputs if not any(name in problems.columns for name in (v.name, *v.aliases))]
    if vectors := [v.name for v in free if v.shape]:
        raise DataError(f"allocate searches for numbers, not for {vectors[0]}; for these, see jaxlaws mixture --help")
    given = problems.inputs(law, searched=free)
    options = _options(law, args, problems, free)
    try:
        best = jax.tree.map(np.asarray, allocate(law, problems.columns["group"], given, **options))
    except (TypeError, ValueError) as error:
        raise DataError(problems.in_words(error)) from None
    spread, drawn = None, None
    if args.draws is not None:
        coefs = draws_of(args, law, problems.columns["group"])
        with many():
            drawn = jax.tree.map(np.asarray, allocate(law, coefs, given, **{**options, "within": None}))
        spread = Spread(args.level, drawn)
    found: dict[str, Any] = {}
    for name, values in vars(best).items():
        if name in ("lowest", "highest") and args.within is None:
            continue
        if not isinstance(values, law.inputs):
            found[name] = values
            continue
        if name == "extrapolated":
            found |= extrapolated_columns(values)
            continue
        for v in free:
            found[f"{name}_{v.name}"] = getattr(values, v.name)
    if spread is not None:
        found |= _spread_columns(spread, drawn, free)
    shape = (len(problems),)
    rows = {name: np.broadcast_to(values, shape) for name, values in found.items()}
    named = result_names(law, rows)
    write(
        args,
        problems.columns,
        {named[name]: values.tolist() for name, values in rows.items()},
        lambda: _show(args, problems, free, rows, named, spread),
    )
    none = "no allocation meets all constraints"
    check_answers(problems, rows["feasible"], rows["converged"], rows["steps"], lambda i: none)


def _spread_columns(spread: Spread, drawn: Any, free: list[Var]) -> dict[str, Any]:
    """How far the answers are spread, as columns."""
    found = {}
    for v in free:
        ends = spread.ends(getattr(drawn.inputs, v.name))
        found[f"inputs_{v.name}_low"], found[f"inputs_{v.name}_high"] = ends
    for name in ("loss", "cost"):
        found[f"{name}_low"], found[f"{name}_high"] = spread.ends(getattr(drawn, name))
    return found | {"draws_answered": spread.answered}


def _options(law: Law, args: argparse.Namespace, problems: Problems, free: list[Var]) -> dict[str, Any]:
    """The arguments of `allocate`."""

    def column(name: str) -> np.ndarray | None:
        return np.array(problems.columns[name], np.float64) if name in problems.columns else None

    options: dict[str, Any] = {name: column(name) for name in ("budget", "target", *RATIOS)}
    options["within"] = args.within
    if (options["budget"] is None) == (options["target"] is None):
        raise DataError("give --budget or --target")
    cost = args.cost or "training"
    parameters = {} if callable(cost) else _parameters(cost)
    known = _numbers_of_costs()
    names = {name for v in variables(law.inputs) for name in (v.name, *v.aliases)}
    for name in known:
        own = name in names and getattr(args, name) is None  # an input of the law
        if name in problems.columns and name not in parameters and not own:
            of = _option(getattr(cost, "__name__", cost))
            raise DataError(f"--{_option(name)} is not for --cost {of}, but for {', '.join(map(_option, known[name]))}")
    for name, needed in parameters.items():
        if needed and name not in problems.columns:
            raise DataError(f"--cost {_option(cost)} needs --{_option(name)}")
    make = cost if callable(cost) else getattr(costs, cost)
    given = {name: column(name) for name in parameters if name in problems.columns}
    options["cost"] = make(**given) if parameters else make
    for kind in ("lower", "upper"):
        bounds = getattr(args, kind) or {}
        if isinstance(bounds, list):
            raise DataError(f"--{kind}: name the inputs, as in --{kind} {free[0].name if free else 'tokens'}=1e9")
        bounds = {**bounds}
        for v in free:
            if (values := column(f"{kind}_{v.name}")) is not None:
                bounds[v.name] = values
        options[kind] = bounds
    if args.in_range:
        options["in_range"] = True
    options["integers"] = args.integer
    options["powers_of_two"] = args.power_of_two or ()
    if args.weights is not None:
        if not law.output_shape:
            raise DataError(f"--weights: {law.name} has one output, and takes none")
        options["weights"] = Axis(law, law.output_shape[0], law.output_columns).vector("weights", args.weights, 0.0)
    return options


def _show(
    args: argparse.Namespace,
    problems: Problems,
    free: list[Var],
    rows: dict[str, np.ndarray],
    named: dict[str, str],
    spread: Any,
) -> None:
    """One allocation, input by input, or several, a row each."""
    what = {}
    for name, form, given in (("loss", ".4f", "target"), ("cost", ".4g", "budget")):
        what[named[name]] = [f"{x:{form}}" for x in rows[name]]
        if spread is not None and given not in problems.columns:
            between = zip(rows[f"{name}_low"], rows[f"{name}_high"], strict=True)
            what[f"{spread.level:.0%} of draws"] = [f"{low:{form}} to {high:{form}}" for low, high in between]
    what[named["multiplier"]] = [f"{x:.3g}" for x in rows["multiplier"]]
    good = rows["feasible"] & rows["converged"]
    epochs = np.asarray(problems.columns.get("max_epochs", np.full(len(problems), np.inf)))
    unique = rows.get("inputs_unique_tokens", problems.columns.get("unique_tokens", 1.0))
    least = np.asarray(problems.columns.get("min_tokens_per_param", np.zeros(len(problems))))
    size = next((v.name for v in free if v.unit == "parameters"), None)
    tied = least * (0.0 if size is None else rows[f"inputs_{size}"]), epochs * unique
    ends = ("lowest", "highest")
    if len(problems) == 1:
        if not rows["feasible"].all():
            return
        print(problems.heading)
        cells = {"input": [v.name for v in free], "best": [f"{rows[f'inputs_{v.name}'][0]:.4g}" for v in free]}
        if args.within is not None:
            cells |= {end: [f"{rows[f'{end}_{v.name}'][0]:.4g}" for v in free] for end in ends}
        if spread is not None:
            pairs = [(rows[f"inputs_{v.name}_low"][0], rows[f"inputs_{v.name}_high"][0]) for v in free]
            cells[f"{spread.level:.0%} of draws"] = [f"{low:.4g} to {high:.4g}" for low, high in pairs]
        if any(at := [_bound(v, rows, tied, 0) for v in free]):
            cells["at its bound"] = at
        print_columns({**cells, "unit": [v.unit for v in free]})
        print("\n" + ", ".join(f"{name} {texts[0]}" for name, texts in what.items()), end="; " if good.any() else "\n")
    else:
        found = {v.name: [f"{x:.4g}" for x in rows[f"inputs_{v.name}"]] for v in free}
        for v in free:
            if spread is not None:
                between = zip(rows[f"inputs_{v.name}_low"], rows[f"inputs_{v.name}_high"], strict=True)
                found[f"{v.name} in {spread.level:.0%}"] = [f"{low:.4g} to {high:.4g}" for low, high in between]
            if args.within is not None:
                found |= {f"{end} {v.name}": [f"{x:.4g}" for x in rows[f"{end}_{v.name}"]] for end in ends}
            if any(at := [_bound(v, rows, tied, i) for i in range(len(problems))]):
                found[f"{v.name} at"] = at
        show_all(problems, {**found, **what}, rows["feasible"], rows["converged"])
        print()
    if good.any():
        gap = rows["gap"][good]
        if "target" in problems.columns:  # it is the logarithm of the cost that has a gap
            print(certainty(100 * gap, "allocation", "cheaper", "%"))
        else:
            print(certainty(gap, "allocation"))


def _bound(v: Var, rows: dict[str, np.ndarray], tied: tuple[np.ndarray, np.ndarray], i: int) -> str:
    """Which of its bounds an input is at; the least and the most tokens follow from other inputs."""
    if v.name == "tokens" and rows["inputs_tokens"][i] < (1 + 1e-6) * tied[0][i]:
        return "per param"
    if v.name == "tokens" and rows["inputs_tokens"][i] > (1 - 1e-6) * tied[1][i]:
        return "epochs"
    return "lower" if rows[f"at_lower_{v.name}"][i] else "upper" if rows[f"at_upper_{v.name}"][i] else ""
