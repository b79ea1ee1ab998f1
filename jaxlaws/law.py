"""What a law is: one pure function, the records that it takes, and what is known about them.

A law of the catalogue is a file that defines three records (inputs, coefficients, outputs), one function, and
one [`Law`][jaxlaws.Law] named `LAW` that holds them together. Everything else (columns of a table, help of the
command line, the table of laws in the README, tests) is derived from these.
"""

from __future__ import annotations

import copyreg
import dataclasses
import difflib
import functools
import importlib
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar, dataclass_transform

import jax
import numpy as np

from jaxlaws import by_value

__all__ = [
    "Law",
    "Matrix",
    "Scalar",
    "Source",
    "UnknownNameError",
    "Var",
    "Vector",
    "as_dict",
    "mean",
    "record",
    "stack",
    "var",
    "variables",
]

T = TypeVar("T")

# What a field of a record holds: a number, a NumPy or a JAX array, or a tracer. The names tell a reader the core
# shape, that is the shape for one configuration; leading axes are batch axes.
Scalar: TypeAlias = Any
Vector: TypeAlias = Any
Matrix: TypeAlias = Any


class UnknownNameError(KeyError):
    """A law or a group that does not exist; the message names the nearest ones that do.

    Example:
        >>> import jaxlaws as jl
        >>> jl.laws["chinchila"]
        Traceback (most recent call last):
            ...
        jaxlaws.law.UnknownNameError: unknown law 'chinchila'; did you mean 'chinchilla'?
    """

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the repr

    @classmethod
    def of(cls, kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
        """The error for a name that is not among the known ones."""
        known = list(known)
        near = difflib.get_close_matches(str(name), known, n=3) or [k for k in known if name and str(name) in k][:3]
        if near:
            hint = "did you mean " + " or ".join(map(repr, near)) + "?"
        elif not known:
            hint = "there is none; give coefficients, such as those of a fit"
        elif len(known) <= 12:
            hint = "known: " + ", ".join(map(repr, known))
        else:
            hint = f"{len(known)} are known, from {known[0]!r} to {known[-1]!r}"
        return cls(f"unknown {kind} {name!r}; {hint}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Var:
    """What is known about one field of a record. Made by [`var`][jaxlaws.var], which documents the fields."""

    name: str = ""
    description: str
    unit: str = "1"
    shape: tuple[str, ...] = ()
    columns: str = ""
    range: tuple[Any, Any] | None = None
    aliases: tuple[str, ...] = ()
    floor: float | None = None
    above: float = 0.0
    missing: float | None = None
    total: float | None = None
    integer: bool = False
    shared: bool = False
    bounds: tuple[float, float] = (-math.inf, math.inf)
    start: tuple[float, float] = (0.0, 1.0)

    def column_names(self, sizes: Mapping[str, int]) -> tuple[str, ...]:
        """The table columns that hold this field: its name, or one name per element of a vector."""
        if not self.shape:
            return (self.name,)
        return tuple(self.columns.format(i) for i in range(1, sizes[self.shape[0]] + 1))


def var(
    description: str,
    *,
    unit: str = "1",
    shape: str | tuple[str, ...] = (),
    columns: str = "",
    range: tuple[Any, Any] | None = None,
    aliases: tuple[str, ...] = (),
    floor: float | None = None,
    above: float = 0.0,
    missing: float | None = None,
    total: float | None = None,
    integer: bool = False,
    shared: bool = False,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    start: tuple[float, float] = (0.0, 1.0),
) -> Any:
    """Describe a field of a record.

    Args:
        description: What the quantity is, in a few words.
        unit: Its unit; "1" for pure numbers.
        shape: Names of the axes of one configuration: none for a scalar, `"domain"` for a vector over domains. Axes
            of the same name have the same size throughout a law.
        columns: For a vector, the name of its columns in a table, with `{}` for the number of the element from 1.
        range: Smallest and largest value (for a vector, of each element) that the coefficients were fitted on. Values
            outside it are extrapolated; it is not a limit.
        aliases: Other names that the input goes by.
        floor: The law is defined for every real number: what is too small for it, it takes as this value.
        above: Without a floor, tables must hold values greater than this.
        missing: What the list-of-dicts interface takes where the key is absent; None makes that a KeyError.
        total: What the elements of a vector must sum to; those that nearly do are divided by their sum.
        integer: Whether only whole numbers make sense, though the law takes any.
        shared: A coefficient that has one value for all groups.
        bounds: Between which values a fit keeps a coefficient, and a search an input for which it is given no bounds.
            A fit has a minimum, whatever the runs, if exponents and other nonlinear coefficients have finite ones.
        start: Between which values a fit starts to look for a coefficient. Those that the law is linear in need none.

    Returns:
        A dataclass field, for use in the body of a class decorated with [`record`][jaxlaws.record].
    """
    about = Var(
        description=description,
        unit=unit,
        shape=(shape,) if isinstance(shape, str) else shape,
        columns=columns,
        range=range,
        aliases=aliases,
        floor=floor,
        above=above,
        missing=missing,
        total=total,
        integer=integer,
        shared=shared,
        bounds=bounds,
        start=start,
    )
    return dataclasses.field(metadata={"var": about})


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=False, field_specifiers=(var,))
def record(cls: type[T]) -> type[T]:
    """Make a class of [`var`][jaxlaws.var] fields a frozen, keyword-only dataclass that is a JAX pytree.

    Example:
        >>> import jax, jaxlaws as jl
        >>> @jl.record
        ... class Inputs:
        ...     tokens: jl.Scalar = jl.var("training tokens", unit="tokens")
        >>> jax.tree.map(lambda x: 2 * x, Inputs(tokens=3))
        Inputs(tokens=6)
    """
    made = jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, kw_only=True, eq=False)(cls))
    made.__reduce__ = _reduced  # type: ignore[assignment]
    return made


def _reduced(values: Any) -> tuple[Any, ...]:
    """The pickle of a record."""
    cls = type(values)
    if by_value.importable(cls):
        return copyreg.__newobj__, (cls,), vars(values)  # type: ignore[attr-defined]
    return _record_of, (by_value.record_bytes(cls), vars(values))


def _record_of(data: bytes, values: dict[str, Any]) -> Any:
    return by_value.record_of(data)(**values)


def variables(cls: Any) -> tuple[Var, ...]:
    """The fields of a record class, in order, as [`Var`][jaxlaws.Var] with their names.

    Example:
        >>> import jaxlaws as jl
        >>> [(v.name, v.unit) for v in jl.variables(jl.laws["moe"].inputs)]
        [('dense_parameter_count', 'parameters'), ('num_experts', 'experts')]
    """
    return _variables(cls)


@functools.cache
def _variables(cls: Any) -> tuple[Var, ...]:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls!r} is not a record: declare a class with @record")
    for f in dataclasses.fields(cls):
        if "var" not in f.metadata:
            raise TypeError(f"{getattr(cls, '__name__', cls)} does not describe {f.name!r}: declare it with var(...)")
    return tuple(dataclasses.replace(f.metadata["var"], name=f.name) for f in dataclasses.fields(cls))


def as_dict(values: Any) -> dict[str, Any]:
    """A record as a dict of floats and nested lists, ready for JSON; `type(values)(**d)` reads it back exactly.

    Example:
        >>> import jaxlaws as jl
        >>> jl.as_dict(jl.laws["moe"].groups["all_data"])["alpha"]
        0.19898568476505754
    """
    return {f.name: np.asarray(getattr(values, f.name)).tolist() for f in dataclasses.fields(values)}


def mean(groups: Mapping[str, T]) -> T:
    """The mean of each coefficient over all groups."""
    averaged: T = jax.tree.map(lambda *values: sum(values) / len(values), *groups.values())
    return averaged


def stack(records: Iterable[Any]) -> Any:
    """Records of the same class as one, each field with a new leading axis.

    Args:
        records: Coefficients, such as `law.groups.values()`.

    Returns:
        A record of NumPy arrays in float64.

    Example:
        >>> import jaxlaws as jl
        >>> jl.stack(jl.laws["sft"].groups.values()).alpha.shape
        (42,)
    """
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf, np.float64) for leaf in leaves]), *records)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a law and its numbers are from, and how sure they are.

    Attributes:
        reference: The publication.
        evidence: How the numbers were come by, and what to know of them.
        stderr: Standard errors of the coefficients as published, as a record of these.
        covariance: Covariance of the coefficients, in the order of the record, flat: of each with those up to itself,
            `((v11,), (v21, v22), ...)`.
        logs: Coefficients in place of whose covariance there is that of their logarithms: those with large errors.
        task: Name of the benchmark task that the law was found on.
        agent: Program that found it, for laws found by a program.
        model: Language model that the program used.
        r2_best: R2 on held-out runs of the law as shipped, the best of `runs` attempts.
        r2_mean: Mean of that R2 over the attempts.
        r2_min: Smallest R2 of the attempts.
        runs: Number of attempts.
    """

    reference: str
    evidence: str = ""
    stderr: Any = None
    covariance: tuple[tuple[float, ...], ...] = ()
    logs: tuple[str, ...] = ()
    task: str = ""
    agent: str = ""
    model: str = ""
    r2_best: float | None = None
    r2_mean: float | None = None
    r2_min: float | None = None
    runs: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Law:
    """A scaling law: a pure function of coefficients and inputs, with all that is known about it.

    Laws hash by identity, so that a law is a free key of the jit cache; coefficients are data. A law lives in a
    module of its own under the name `LAW`, and is called as that module is.

    Attributes:
        title: What the law predicts from what, in one line.
        question: The question that it answers, in the same words as other laws that do: they are listed together.
        advice: When to use it, and what it cannot do.
        fn: `fn(coefs, inputs)` for one configuration: scalars, and vectors of the shape that the records state.
            Batch axes are added by the package.
        inputs: Record class of the inputs.
        coefs: Record class of the coefficients.
        outputs: Record class of the outputs. `fn` returns the array of its field, or of several fields, which are
            numbers then, their stack in the order of the record.
        groups: Coefficients per group of runs, in full precision; none for a law that is to be fitted first.
        formula: The formula for values above the floors, as an expression that NumPy can evaluate.
        source: Where the law and its numbers are from.
        sources: The same for groups whose numbers are from elsewhere, or of known errors.
        ranges: Between which values the runs of a group have an input, or the ratio of two inputs, such as
            `{"sardana2024": {"params": (1.5e8, 6e9), "tokens/params": (10, 1e4)}}`; None where that is not known. What
            is not named is as under the key None, for all groups, and else the `range` of the input.
        fallback: What the source uses for a group it does not know, from all groups. The list-of-dicts interface
            follows it; elsewhere an unknown group is an error.
        golden: Published or independently computed values, with all digits: group (or, for a law without groups,
            coefficients), inputs by column, outputs by column.
        curvature: What is known of the outputs as functions of the inputs, for any coefficients within their bounds, so
            that a search can say how far from the best its answer is. "separable": each, and each sum of them with
            weights, is a sum of functions of one element of the inputs, every one of which is convex or concave
            throughout; "convex": each is convex; "": nothing.
        decades: How far the inputs may leave their range, on either side, and float32 is still good to 1e-5: less than
            6 for formulas with exponents that grow there.
        falls_with: Inputs that all outputs fall with, wherever the coefficients were fitted. Where a cost does not
            count one, a search asks for a bound.
        rises_with: Inputs that they rise with, of which a search asks for a bound.
        objective: What a fit minimises, unless told otherwise: "squared", "huber_log" or "relative" errors, as for
            [`fit`][jaxlaws.fit].
        original: The law that this one has other groups for, such as fitted ones: programs are compiled for that one.
    """

    title: str
    fn: Callable[[Any, Any], Any]
    inputs: Any
    coefs: Any
    outputs: Any
    groups: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    formula: str
    source: Source
    sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str | None, Mapping[str, tuple[Any, Any] | None]] = dataclasses.field(default_factory=dict)
    question: str = ""
    advice: str = ""
    fallback: Callable[[Mapping[str, Any]], Any] | None = None
    golden: tuple[tuple[Any, Mapping[str, float], Mapping[str, float]], ...] = ()
    curvature: str = ""
    decades: float = 6
    falls_with: tuple[str, ...] = ()
    rises_with: tuple[str, ...] = ()
    objective: str = "squared"
    original: Law | None = None

    @property
    def name(self) -> str:
        """The name of the law: that of its file."""
        return self.fn.__module__.rpartition(".")[2]

    @property
    def output_shape(self) -> tuple[str, ...]:
        """The names of the axes of the output: none for a single number, "output" for several."""
        fields = variables(self.outputs)
        return fields[0].shape if len(fields) == 1 else ("output",)

    def source_of(self, group: str) -> Source:
        """Where the numbers of a group are from."""
        return self.sources.get(group, self.source)

    def ranges_of(self, group: str | None = None) -> dict[str, tuple[Any, Any]]:
        """Between which values the runs of a group, or by default of the law, have inputs and ratios of inputs.

        Example:
            >>> import jaxlaws as jl
            >>> jl.laws["chinchilla"].ranges_of("sardana2024")["tokens/params"]
            (10, 10000.0)
        """
        if group is not None and group not in self.groups:
            raise UnknownNameError.of(f"group of {self.name}", group, self.groups)
        known: dict[str, tuple[Any, Any] | None] = {v.name: v.range for v in variables(self.inputs)}
        known |= {**self.ranges.get(None, {}), **self.ranges.get(group, {})}
        return {name: ends for name, ends in known.items() if ends is not None}

    def with_groups(
        self, groups: Mapping[str, Any], ranges: Mapping[str, Mapping[str, tuple[Any, Any] | None]] | None = None
    ) -> Law:
        """The same law with other groups, and the ranges of their runs: what is not named there is not known.

        Example:
            >>> import jaxlaws as jl
            >>> law = jl.laws["sft"].with_groups({"mine": jl.laws["sft"].coefs(L_inf=1.5, A=4.0, alpha=0.2)})
            >>> print(f"{law('mine', sft_data_size=1e5):.4f}", law.ranges_of("mine"))
            1.9000 {}
        """
        unknown = dict.fromkeys((*(v.name for v in variables(self.inputs)), *self.ratios))
        known: dict[str | None, Any] = {name: {**unknown, **(ranges or {}).get(name, {})} for name in groups}
        known[None] = next(iter(known.values())) if len(known) == 1 else unknown  # of coefficients without a name
        changes: dict[str, Any] = {"groups": groups, "ranges": known, "fallback": None, "golden": (), "sources": {}}
        found, original = dataclasses.replace(self, **changes, original=None), self.original or self
        same = bool(original.groups) and original.sizes == found.sizes
        return dataclasses.replace(found, original=original) if same else found

    @functools.cached_property
    def ratios(self) -> tuple[str, ...]:
        """The ratios of inputs that `ranges` names, such as "tokens/params"."""
        return tuple(dict.fromkeys(name for each in self.ranges.values() for name in each if "/" in name))

    def covariance_of(self, group: str) -> np.ndarray | None:
        """The covariance of the coefficients of a group, of those in `logs` the logarithms, or None."""
        rows = self.source_of(group).covariance
        if not rows:
            return None
        matrix = np.zeros((len(rows), len(rows)))
        for i, row in enumerate(rows):
            matrix[i, : i + 1] = matrix[: i + 1, i] = row
        return matrix

    def stderr_of(self, group: str) -> Any:
        """Standard errors of the coefficients of a group, as a record: those published, or of the covariance."""
        source, matrix = self.source_of(group), self.covariance_of(group)
        if source.stderr is not None or matrix is None:
            return source.stderr
        errors, values = vars(self.unflattened(np.sqrt(np.diag(matrix)))), self.groups[group]
        return self.coefs(**{n: e * getattr(values, n) if n in source.logs else e for n, e in errors.items()})

    def unflattened(self, numbers: np.ndarray) -> Any:
        """The record of coefficients whose numbers, in its order, are the last axis of an array."""
        found, start = {}, 0
        for v in variables(self.coefs):
            shape = tuple(self.sizes[axis] for axis in v.shape)
            end = start + math.prod(shape)
            found[v.name] = numbers[..., start:end].reshape((*numbers.shape[:-1], *shape))
            start = end
        return self.coefs(**found)

    @functools.cached_property
    def sizes(self) -> Mapping[str, int]:
        """The size of each named axis, for example `{"domain": 5}`."""
        examples = [*self.groups.values(), *(group for group, *_ in self.golden if not isinstance(group, str))]
        fields = variables(self.coefs)
        sizes = {"output": len(variables(self.outputs))} if self.output_shape == ("output",) else {}
        if examples:
            shapes = [(v.shape, np.shape(getattr(examples[0], v.name))) for v in fields]
            return sizes | {axis: size for axes, shape in shapes for axis, size in zip(axes, shape, strict=True)}
        if any(v.shape for v in fields):
            raise ValueError(
                f"{self.name} has neither a group nor golden values, from which the sizes of its vectors would be known"
            )
        return sizes

    @functools.cached_property
    def columns(self) -> tuple[tuple[Var, str], ...]:
        """The input that each column of `input_columns` belongs to, with the name of the column."""
        return tuple((v, name) for v in variables(self.inputs) for name in v.column_names(self.sizes))

    @functools.cached_property
    def input_columns(self) -> tuple[str, ...]:
        """The columns of a table that hold the inputs."""
        return tuple(name for _, name in self.columns)

    @functools.cached_property
    def output_columns(self) -> tuple[str, ...]:
        """The columns of a table that hold the outputs."""
        return tuple(name for v in variables(self.outputs) for name in v.column_names(self.sizes))

    def __call__(self, group: Any, inputs: Any = None, /, **named: Any) -> jax.Array | np.ndarray:
        """Predict: see [`predict`][jaxlaws.predict].

        Example:
            >>> import jaxlaws as jl
            >>> print(jl.laws["parallel"]("pile", num_params=1e9, parallel_size=[1, 2, 4]))
            [2.0149... 1.9845... 1.9631...]
        """
        from jaxlaws.evaluation import predict  # a law knows no verb but this one

        return predict(self, group, inputs, **named)

    def __repr__(self) -> str:
        return f"<Law {self.name}: {', '.join(v.name for v in variables(self.inputs))} -> {self.output_text}>"

    @property
    def output_unit(self) -> str:
        """The unit of the outputs; none where they have several."""
        units = {v.unit for v in variables(self.outputs)}
        return units.pop() if len(units) == 1 else "1"

    @property
    def output_name(self) -> str:
        """The name of the output; "output" where there are several."""
        fields = variables(self.outputs)
        return fields[0].name if len(fields) == 1 else "output"

    @property
    def output_text(self) -> str:
        """The names of the outputs, for display."""
        return ", ".join(v.name for v in variables(self.outputs))

    @property
    def fields(self) -> dict[str, Any]:
        """What `Law` makes a law like this one of."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def importable(self) -> bool:
        """Whether other processes can import it: it is that of a module, and not of a program or a notebook."""
        return _loaded(self.fn.__module__) is self and by_value.importable(self.fn)

    def __reduce__(self) -> tuple[Any, ...]:
        module = self.fn.__module__
        if self.importable:
            return _law_of_module, (module,)
        own = module if _loaded(module) is self else ""
        return _law_of_fields, vars(self).get("pickled") or (by_value.dumps(self.fields), own)

    def __deepcopy__(self, memo: Any) -> Law:
        return self


def _law_of_module(module: str) -> Law | None:
    return getattr(importlib.import_module(module), "LAW", None)


def _loaded(module: str) -> Any:
    return getattr(sys.modules.get(module), "LAW", None)


@functools.cache  # a law stays one law
def _law_of_fields(data: bytes, module: str) -> Law:
    fields, found = by_value.loads(data), _loaded(module)  # that of this process, if it is the same
    if isinstance(found, Law) and found.fn is fields["fn"]:
        return found
    law = Law(**fields)
    vars(law)["pickled"] = (data, module)  # so that it is this one again
    return law
