"""Fitted coefficients in files."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxlaws.arguments import check_law
from jaxlaws.catalogue import laws
from jaxlaws.law import Law, UnknownNameError, Var, as_dict, variables
from jaxlaws.ranges import ranges_for
from jaxlaws.tables import DataError

if TYPE_CHECKING:
    from jaxlaws.fitting.bootstrap import Draws
    from jaxlaws.fitting.estimation import Fit

__all__ = ["coefs_text", "not_converged", "read_coefs", "read_draws", "read_law", "write_coefs", "write_draws"]

TWICE = object()  # in place of a value whose key an object has more than once


def write_coefs(fit: Fit, path: str | os.PathLike[str]) -> None:
    """Write the coefficients of a fit to a file, with what is known of them; whole, or not at all.

    Args:
        fit: The fit.
        path: The file, in JSON. Numbers read back bit for bit; those that JSON has not are null.

    Raises:
        OSError: The file cannot be written.
    """
    from jaxlaws import files

    with files.whole_file(os.fspath(path)) as file:
        file.write(coefs_text(fit).encode())


def coefs_text(fit: Fit) -> str:
    """What `write_coefs` writes."""
    groups = {
        name: {
            "coefs": as_dict(fit.coefs[name]),
            "stderr": as_dict(fit.stderr[name]),
            "value": fit.value[name],
            "converged": fit.converged[name],
            "share": fit.share[name],
            "flags": list(fit.flags[name]),
            "range": _columns(fit.law, fit.runs.ranges[name]),
        }
        for name in fit.coefs
    }
    content = {"law": fit.law.name, "objective": fit.objective, "range": _of_all(groups), "groups": groups}
    return _json(content) + "\n"


def _columns(law: Law, ranges: Mapping[str, tuple[Any, Any] | None]) -> dict[str, list[float]]:
    """The least and the largest value by column, and of ratios of columns."""
    fields = {v.name: v for v in variables(law.inputs)}
    found: dict[str, list[float]] = {}
    for name, ends in ranges.items():
        if ends is not None:
            columns = fields[name].column_names(law.sizes) if name in fields else (name,)
            low, high = (np.ravel(end).tolist() for end in ends)
            found |= {column: [a, b] for column, a, b in zip(columns, low, high, strict=True)}
    return found


def _of_all(groups: Mapping[str, Any]) -> dict[str, list[float]]:
    """The least and the largest value of the runs of all groups."""
    ends: dict[str, list[float]] = {}
    for entry in groups.values():
        for column, pair in entry["range"].items():
            known = ends.get(column, pair)
            ends[column] = [min(known[0], pair[0]), max(known[1], pair[1])]
    return ends


def _json(value: Any, indent: str = "") -> str:
    """JSON with a line per entry of an object and per row of a matrix."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {_json(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[\n" + ",\n".join(inner + _json(row, inner) for row in value) + f"\n{indent}]"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    known = not isinstance(value, float) or math.isfinite(value)
    return json.dumps(value if known else None, ensure_ascii=False)


def read_coefs(path: str | os.PathLike[str], law: Law | None = None) -> dict[str, Any]:
    r"""The coefficients in a file, as `fit.save` and `jaxlaws fit -o` write them.

    Args:
        path: The file, in JSON: `{"law": name, "groups": {group: {"coefs": {name: value}}}}`, and anything beside. If
            `law` is given, also just `{group: {name: value}}`.
        law: The law; by default the one of the catalogue that the file names.

    Returns:
        The coefficients of each group: take them wherever a group is asked for. The ranges of their runs come with
        [`read_law`][jaxlaws.read_law].

    Raises:
        DataError: The file is damaged, of another law, or a coefficient is missing, unknown or not of its shape; the
            message names the file, the group and the coefficient.
        OSError: The file cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> import jaxlaws as jl
        >>> law = jl.laws["sft"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "coefs.json")
        ...     _ = path.write_text('{"my model": {"L_inf": 1.5, "A": 4, "alpha": 0.2}}')
        ...     coefs = jl.read_coefs(path, law)
        >>> coefs
        {'my model': Coefs(L_inf=1.5, A=4.0, alpha=0.2)}
        >>> print(f"{law(coefs['my model'], sft_data_size=1e5):.4f}")
        1.9000
    """
    name = os.fspath(path)
    content = _content(name)
    return _groups(name, content, _law_of(name, content, law))


def read_law(path: str | os.PathLike[str], law: Law | None = None, *, draws: bool = False) -> Law:
    r"""The law with the groups of a file in place of its own, and the ranges of the runs that these were fitted to.

    What takes a law takes it: searches, predictions and tables say what lies outside these ranges.

    Args:
        path: The file, as `fit.save` and `jaxlaws fit -o` write it, or a plainer one as for
            [`read_coefs`][jaxlaws.read_coefs]. An object "range", of a group or of all, holds `[least, largest]` by
            column of the inputs, or by ratio of two, as "tokens/params". What has none there is not known.
        law: The law; by default the one of the catalogue that the file names.
        draws: Whether it is a file of draws, as for [`read_draws`][jaxlaws.read_draws].

    Returns:
        The law.

    Raises:
        DataError: The file is damaged, of another law, or has wrong coefficients; the message says where.
        OSError: The file cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> import jaxlaws as jl
        >>> coefs, runs = {"L_inf": 1.5, "A": 4, "alpha": 0.2}, {"sft_data_size": [200, 1e5]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "coefs.json")
        ...     _ = path.write_text(json.dumps({"law": "sft", "groups": {"mine": {"coefs": coefs, "range": runs}}}))
        ...     law = jl.read_law(path)
        >>> jl.in_range(law, group="mine", sft_data_size=[1e4, 1e6]).sft_data_size
        array([ True, False])
    """
    name = os.fspath(path)
    content = _read_draws(name)[2] if draws else _content(name)
    law = _law_of(name, content, law)
    if draws and not content:
        return law.with_groups(read_draws(name, law).best)
    groups = _groups(name, content, law)
    found = law.with_groups(groups)
    if not _is_told(content):
        return found
    shared = _object(content.get("range", {}), name, "range")
    ranges = {}
    for group, entry in content["groups"].items():
        own = _object(entry.get("range", shared), name, f"group {group!r}, range")
        ranges[group] = _ranges(found, own, name, f"group {group!r}, range" if "range" in entry else "range")
    return law.with_groups(groups, ranges)


def not_converged(path: str) -> list[str]:
    """The groups in a file of coefficients of which it says that their fit did not converge."""
    content = _content(path)
    groups = content["groups"] if _is_told(content) else {}
    return [name for name, entry in groups.items() if entry.get("converged") is False]


def _ranges(law: Law, entry: Mapping[str, Any], path: str, where: str) -> dict[str, tuple[Any, Any]]:
    """The ranges of the inputs of which all columns have one, and of ratios."""

    def ends(column: str) -> tuple[float, float]:
        value = entry[column]
        if not isinstance(value, list) or len(value) != 2:
            raise DataError(f"{path}: {where}, {column}: two numbers are needed, not {_shown(value)}")
        low, high = (_number(end, path, f"{where}, {column}") for end in value)
        return low, high

    found: dict[str, tuple[Any, Any]] = {}
    for v in variables(law.inputs):
        names = v.column_names(law.sizes)
        if all(name in entry for name in names):
            low, high = zip(*map(ends, names), strict=True)
            found[v.name] = (low, high) if v.shape else (low[0], high[0])
    single = {v.name for v in variables(law.inputs) if not v.shape}
    for name in entry:
        if len(parts := name.split("/")) == 2 and {*parts} <= single:
            found[name] = ends(name)
    return found


def write_draws(draws: Draws, path: str | os.PathLike[str]) -> None:
    """Write draws of coefficients to a file; whole, or not at all.

    Args:
        draws: The draws.
        path: The file, in Parquet: a row per group and draw, with the columns `group`, `draw` and one per coefficient,
            such as `alpha` or `t[0][2]`. What `Fit.save` writes of the fit is in its metadata.

    Raises:
        OSError: The file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from jaxlaws import files

    if files.format_of(os.fspath(path))[0] != "parquet":
        raise DataError(f"{os.fspath(path)}: draws are written in Parquet; give the file the suffix .parquet")
    law, count = draws.law, len(jax.tree.leaves(next(iter(draws.coefs.values())))[0])
    columns: dict[str, Any] = {
        "group": [name for name in draws.coefs for _ in range(count)],
        "draw": np.tile(np.arange(count), len(draws.coefs)),
    }
    for v in variables(law.coefs):
        values = np.concatenate([getattr(coefs, v.name) for coefs in draws.coefs.values()])
        for index in np.ndindex(values.shape[1:]):
            columns[_column(v.name, index)] = values[(slice(None), *index)]
    if draws.fit is not None:
        about = coefs_text(draws.fit)
    else:
        groups = {
            name: {
                "coefs": as_dict(best),
                "range": _columns(law, ranges_for(law, name if name in law.groups else None).ends),
            }
            for name, best in draws.best.items()
        }
        about = _json({"law": law.name, "groups": groups})
    table = pa.table(columns).replace_schema_metadata({METADATA: about})
    with files.whole_file(os.fspath(path)) as file:
        pq.write_table(table, file)


def read_draws(path: str | os.PathLike[str], law: Law | None = None) -> Draws:
    r"""The draws of coefficients in a file, as `Draws.save` and `jaxlaws fit --draws` write them.

    Args:
        path: The file, in Parquet, or a table of another kind with the same columns.
        law: The law; by default the one of the catalogue that the file names.

    Returns:
        The draws. Of a table that does not have the coefficients that they are about, those are their means.

    Raises:
        DataError: The file is damaged, of another law, lacks a coefficient, or has groups of different sizes.
        OSError: The file cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> import jaxlaws as jl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "draws.csv")
        ...     _ = path.write_text("group,L_inf,A,alpha\nmine,1,5,0.3\nmine,1.1,5.2,0.31\n")
        ...     draws = jl.read_draws(path, jl.laws["sft"])
        >>> draws.coefs["mine"].A
        array([5. , 5.2])
    """
    from jaxlaws.fitting.bootstrap import Draws

    name, table, content = _read_draws(os.fspath(path))
    law = _law_of(name, content, law)
    if table["group"].null_count:
        raise DataError(f"{name}: column 'group' has empty values")
    member: dict[str, list[int]] = {}
    for row, group in enumerate(table["group"].to_pylist()):
        member.setdefault(str(group), []).append(row)
    order = list(member)
    if len({len(rows) for rows in member.values()}) > 1:
        raise DataError(f"{name}: the groups have different numbers of draws")
    if "draw" in table.column_names:  # draws of groups with shared coefficients belong together
        number = _numbers(name, table, "draw")
        member = {g: [rows[i] for i in np.argsort(number[rows], kind="stable")] for g, rows in member.items()}
        if any((number[rows] != number[member[order[0]]]).any() for rows in member.values()):
            raise DataError(f"{name}: the groups have different draws")
    fields = {v.name: _field(name, table, v) for v in variables(law.coefs)}
    coefs = {g: law.coefs(**{key: values[rows] for key, values in fields.items()}) for g, rows in member.items()}
    if content:
        best = _groups(name, content, law)
        if set(best) != set(order):
            raise DataError(f"{name}: the groups of the draws are not those of the fit that the file tells of")
    else:
        best = {g: jax.tree.map(lambda x: x.mean(axis=0), c) for g, c in coefs.items()}
    entries = content.get("groups", {})
    flags = {g: tuple(map(str, entries[g].get("flags", ()))) for g in order if g in entries}
    return Draws(law=law, coefs=coefs, best=best, converged=dict.fromkeys(order, math.nan), flags=flags)


METADATA = "jaxlaws"  # of a Parquet file: the fit that the draws are of, in JSON


def _read_draws(path: str) -> tuple[str, Any, dict[str, Any]]:
    """A table of draws, and what it says of the fit."""
    import pyarrow as pa

    from jaxlaws.tables import missing, read_table

    table = read_table(path)
    try:
        table.validate(full=True)
    except pa.ArrowException as error:  # text that is none, say
        raise DataError(f"{path}: the table is damaged: {' '.join(str(error).split())}") from None
    for column in ("group",):
        if column not in table.column_names:
            raise DataError(f"{path}: {missing(table.column_names, column)}")
    if not len(table):
        raise DataError(f"{path}: the table has no rows")
    about = (table.schema.metadata or {}).get(METADATA.encode())
    return path, table, {} if about is None else _parsed(about, path)


def _column(name: str, index: tuple[int, ...]) -> str:
    return name + "".join(f"[{i}]" for i in index)


def _numbers(path: str, table: Any, column: str) -> np.ndarray:
    """A column of numbers in a table of draws, none of them missing."""
    from jaxlaws.tables import as_frame, missing, numbers

    if column not in table.column_names:
        raise DataError(f"{path}: {missing(table.column_names, column)}")
    try:
        return numbers(as_frame(table.select([column])), column, 1)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _field(path: str, table: Any, v: Var) -> np.ndarray:
    """A coefficient in a table of draws, [row, ...]."""
    shape = []
    for axis in range(len(v.shape)):
        size = 0
        while _column(v.name, (*[0] * axis, size, *[0] * (len(v.shape) - axis - 1))) in table.column_names:
            size += 1
        shape.append(max(size, 1))
    found = np.empty((len(table), *shape))
    for index in np.ndindex(*shape):
        found[(slice(None), *index)] = _numbers(path, table, _column(v.name, index))
    return found


# Reading, which trusts nothing.


def _content(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        return _parsed(file.read(), path)


def _parsed(text: bytes, path: str) -> dict[str, Any]:
    try:
        content = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_pairs)
    except UnicodeDecodeError:
        raise DataError(f"{path}: this is not JSON, but no text at all; files of draws go with --draws") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: this is not JSON: {error}") from None
    return _object(content, path, "")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = TWICE if key in found else value
    return found


def _is_told(content: Mapping[str, Any]) -> bool:
    """Whether the file says which law its coefficients are of; else its keys are groups."""
    return "law" in content and not isinstance(content["law"], dict)


def _law_of(path: str, content: Mapping[str, Any], law: Law | None) -> Law:
    if law is not None:
        check_law(law)
        return law
    if not _is_told(content):
        raise DataError(f"{path}: the file does not say which law its coefficients are of; give law=")
    name = content["law"]
    if not isinstance(name, str):
        raise DataError(f"{path}: law: a name is needed, not {_shown(name)}")
    if name not in laws:
        raise DataError(f"{path}: {UnknownNameError.of('law', name, laws)}; for another one, give law=")
    return laws[name]


def _groups(path: str, content: Mapping[str, Any], law: Law) -> dict[str, Any]:
    told = _is_told(content)
    if told and content["law"] != law.name:
        raise DataError(f"{path}: these are coefficients of {_shown(content['law'])}, not of {law.name!r}")
    if told and "groups" not in content:
        raise DataError(f"{path}: there is no 'groups'")
    groups = _object(content["groups"], path, "groups") if told else content
    if not groups:
        raise DataError(f"{path}: there are no groups")
    sizes: dict[str, int] = {}
    found = {}
    for name, entry in groups.items():
        where = f"group {name!r}"
        entry = _object(entry, path, where)
        if told:
            if "coefs" not in entry:
                raise DataError(f"{path}: {where}: there is no 'coefs'")
            entry = _object(entry["coefs"], path, f"{where}, coefs")
        found[name] = _record(law, entry, sizes, path, where)
    return found


def _record(law: Law, entry: Mapping[str, Any], sizes: dict[str, int], path: str, where: str) -> Any:
    known = {v.name: v for v in variables(law.coefs)}
    for name in entry:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"{law.name} has {', '.join(known)}"
            raise DataError(f"{path}: {where}: unknown coefficient {name!r}; {hint}")
    for name in known:
        if name not in entry:
            raise DataError(f"{path}: {where}: coefficient {name!r} is missing")
    return law.coefs(**{name: _value(v, entry[name], sizes, path, f"{where}, {name}") for name, v in known.items()})


def _value(v: Var, value: Any, sizes: dict[str, int], path: str, where: str) -> Any:
    """A float, or an array whose axes have the sizes that they have elsewhere in the file."""

    def nested(value: Any, depth: int) -> Any:
        if depth == 0:
            return _number(value, path, where)
        if not isinstance(value, list) or not value:
            kind = "numbers" if depth == 1 else "rows of numbers"
            raise DataError(f"{path}: {where}: a list of {kind} is needed, not {_shown(value)}")
        rows = [nested(row, depth - 1) for row in value]
        if depth > 1 and len({len(row) for row in rows}) > 1:
            raise DataError(f"{path}: {where}: the rows have different lengths")
        return rows

    found = nested(value, len(v.shape))
    if not v.shape:
        return found
    array = np.array(found, np.float64)
    want = tuple(sizes.setdefault(axis, size) for axis, size in zip(v.shape, array.shape, strict=True))
    if array.shape != want:
        raise DataError(f"{path}: {where}: the shape is {array.shape}, where {want} is needed")
    return array


def _number(value: Any, path: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{path}: {where}: a number is needed, not {_shown(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise DataError(f"{path}: {where}: a finite number is needed, not {_shown(value)}")
    return found


def _object(value: Any, path: str, where: str) -> dict[str, Any]:
    where = f"{where}: " if where else ""
    if not isinstance(value, dict):
        raise DataError(f"{path}: {where}an object is needed, not {_shown(value)}")
    for key, item in value.items():
        if item is TWICE:
            raise DataError(f"{path}: {where}{key!r} is given twice")
    return value


def _shown(value: Any) -> str:
    """A value of JSON in a message."""
    if isinstance(value, (list, dict)):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
