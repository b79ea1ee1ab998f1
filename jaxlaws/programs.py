"""Compiled programs: few of them, as batches are padded to a few sizes, and kept on disk for other processes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import io
import os
import pickle
import platform
import tempfile
import time
import types
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.monitoring
import numpy as np
from jax.experimental.serialize_executable import deserialize_and_load, serialize

from jaxlaws.law import Law

__all__ = ["LONG_VECTORS", "ONE_LOOP", "QUICK", "Program", "forget", "known", "one_cpu", "padded", "roomy", "unchecked"]

# Options of the compiler for a CPU: for much data, vectors as long as it has them, and sums over a short axis in loops
# of its own, as those of a library that it would call take five times as long; or, for hundreds of small loops with
# little data, fewer passes and the older way to make machine code of them, which takes half of the time.
LONG_VECTORS = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_experimental_ynn_fusion_type": ""}
QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_backend_optimization_level": 1}
# Sums are computed along with their terms. Otherwise those of more than 32 terms are cut into shorter ones: more
# exact for thousands of terms, and slower to compile.
ONE_LOOP = {"xla_disable_hlo_passes": "tree_reduction_rewriter"}

CACHE = "JAXLAWS_CACHE"  # the environment variable that names another folder for programs; empty for none
LOADED = "/jaxlaws/programs/load_duration"  # the event of JAX's monitoring where a program comes from the folder
MOST_KEPT = 2000  # files on disk; those that were not used for the longest time are deleted
PROGRAM, INDEX = ".program", ".index"  # how the names of files end
IMPORTED = time.time()
CONFIG: Any = jax.config  # whose options are not declared
PACKAGES = ("jaxlaws", "jax", "jaxlib", "numpy", "builtins")


def roomy(count: int) -> int:
    """The size that a batch is padded to: the next number among 8, 12, 16, 24, 32, 48, ...

    Example:
        >>> [roomy(count) for count in (1, 8, 9, 100, 1000)]
        [8, 8, 12, 128, 1024]
    """
    power = 1 << (max(count, 9) - 1).bit_length()
    return next(size for size in (8, 3 * power // 4, power) if count <= size)


def padded(array: Any, size: int) -> np.ndarray:
    """An array with its last row again and again, up to a number of rows: they warn of nothing that it does not.

    Example:
        >>> padded([1.0, 2.0], 4)
        array([1., 2., 2., 2.])
    """
    array = np.asarray(array)
    found = np.empty((size, *array.shape[1:]), array.dtype)
    found[: len(array)] = array
    found[len(array) :] = array[-1]
    return found


@functools.cache
def one_cpu() -> bool:
    """Whether JAX computes on one CPU alone: memory is then that of NumPy, and nothing is sharded."""
    return jax.default_backend() == "cpu" and jax.device_count() == 1


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """JAX does not look for NaN and infinity in this thread, whatever it is set to: searches compute with both."""
    with jax.debug_nans(False), jax.debug_infs(False):
        yield


class Program:
    """A pure function of static arguments and of pytrees of arrays, compiled for each structure and set of shapes.

    On a CPU, what is compiled is kept on disk; elsewhere it is what `jax.jit` makes of the function. Not for tracers.

    Args:
        fn: The function; its first arguments are static.
        static: How many of them.
        cpu_options: Options of the compiler for a CPU.
        checked: Whether NaN and infinity in the results are errors where JAX is set to look for them.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        static: int,
        cpu_options: Mapping[str, Any] | None = None,
        checked: bool = False,
    ):
        self.fn, self.static, self.cpu_options, self.checked = fn, static, dict(cpu_options or {}), checked

    @functools.cached_property
    def jitted(self) -> Any:
        """What `jax.jit` makes of the function, with the options where JAX runs on a CPU."""
        options = known(self.cpu_options) if jax.default_backend() == "cpu" else None
        return jax.jit(self.fn, static_argnums=tuple(range(self.static)), compiler_options=options)

    def __call__(self, *args: Any) -> Any:
        """Call the function, with arrays of NumPy or JAX."""
        with contextlib.nullcontext() if self.checked else unchecked():
            return self._called(*args)

    def _called(self, *args: Any) -> Any:
        if not one_cpu() or CONFIG.jax_disable_jit or CONFIG.jax_debug_nans or CONFIG.jax_debug_infs:
            with jax.ensure_compile_time_eval():
                return self.jitted(*args)
        leaves, tree = jax.tree.flatten(args[self.static :])
        avals = tuple([(leaf.shape, leaf.dtype) for leaf in leaves])
        run, out = _executable(self, args[: self.static], tree, avals, CONFIG.jax_enable_x64)
        return jax.tree.unflatten(out, run(*leaves))


@functools.lru_cache(maxsize=1024)
def _executable(program: Program, static: Hashable, tree: Any, avals: Any, x64: bool) -> tuple[Callable[..., Any], Any]:
    """The compiled function of the leaves of all arrays to those of the result, and the structure of the latter."""
    index = _Index.of((program.fn, static, tree, avals, x64, sorted(program.cpu_options.items())))
    if found := index.read():
        return found
    structure: list[Any] = []

    def flat(*leaves: Any) -> list[Any]:
        found, out = jax.tree.flatten(program.fn(*static, *jax.tree.unflatten(tree, leaves)))  # type: ignore[misc]
        structure.append(out)
        return found

    flat.__name__ = program.fn.__name__
    structs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in avals]
    run, path = _compiled(jax.jit(flat, keep_unused=True).lower(*structs), program.cpu_options)
    index.write(path, structure[0])
    return run, structure[0]


def known(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Those of the options that this version of the compiler has; None for none."""
    return {name: value for name, value in options.items() if _is_known(name, value)} or None


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    if "experimental" not in name:
        return True
    try:
        jax.jit(lambda: 0.0).lower().compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError:
        return False
    return True


def forget() -> None:
    """Let go of the programs in memory."""
    _executable.cache_clear()


# On disk: programs by what JAX lowers them to; and which of them it is for what the package itself asks for, by its
# own source, so that nothing needs to be traced again.


def _compiled(lowered: Any, options: Mapping[str, Any]) -> tuple[Any, Path | None]:
    """The program, and where it is kept."""
    folder = _folder()
    path = folder and folder / (_digest((lowered.as_text(), sorted(options.items()))) + PROGRAM)
    if found := path and _loaded(path):
        return found, path
    found = lowered.compile(compiler_options=known(options))
    if path:
        with contextlib.suppress(Exception):  # a folder that cannot be written, or a program that cannot be kept
            _write(path, pickle.dumps(serialize(found)))
    return found, path


def _loaded(path: Path) -> Any:
    """A program that was kept; None if it is not there, or cannot be used here."""
    start = time.perf_counter()
    with contextlib.suppress(Exception):
        found = deserialize_and_load(*pickle.loads(zlib.decompress(path.read_bytes())))
        os.utime(path)
        jax.monitoring.record_event_duration_secs(LOADED, time.perf_counter() - start)
        return found
    return None


class _Index(NamedTuple):
    """Which program on disk is meant."""

    path: Path | None

    @classmethod
    def of(cls, wanted: Any) -> _Index:
        """That for what is wanted, if it can be told from the source of this package alone: nothing of the user's."""
        folder, source = _folder(), _source()
        if folder and source:
            with contextlib.suppress(Exception):  # functions without a name cannot be pickled
                file = io.BytesIO()
                _Pickler(file).dump(wanted)
                return cls(folder / (_digest((source, file.getvalue())) + INDEX))
        return cls(None)

    def read(self) -> tuple[Any, Any] | None:
        """The program and the structure of its result, if they are there."""
        if self.path is not None:
            with contextlib.suppress(Exception):
                name, structure = pickle.loads(zlib.decompress(self.path.read_bytes()))
                os.utime(self.path)
                if program := _loaded(self.path.parent / name):
                    return program, structure
        return None

    def write(self, program: Path | None, structure: Any) -> None:
        """Keep which it is."""
        if self.path and program:
            with contextlib.suppress(Exception):
                _write(self.path, pickle.dumps((program.name, structure)))


class _Pickler(pickle.Pickler):
    """Pickles what consists of this package, and of data."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Law) and not value.importable:  # of whose functions a pickle tells nothing
            return dict, (value.fields,)
        if isinstance(value, (type, types.FunctionType)) and value.__module__.partition(".")[0] not in PACKAGES:
            raise pickle.PicklingError(value)
        return NotImplemented


@functools.cache
def _source() -> str | None:
    """A digest of the source of this package; None where it has been changed since it was imported."""
    folder = Path(__file__).parent
    files = sorted(folder.rglob("*.py"))
    if max(file.stat().st_mtime for file in files) >= IMPORTED:
        return None
    return _digest([(str(file.relative_to(folder)), file.read_bytes()) for file in files])


def _folder() -> Path | None:
    """Where programs are kept; nowhere if that is not wanted, or if JAX keeps all programs itself."""
    if not CONFIG.jax_enable_compilation_cache or CONFIG.jax_compilation_cache_dir:
        return None
    named = os.environ.get(CACHE)
    if named is not None:
        return Path(named).absolute() if named else None
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home, "jaxlaws") if os.path.isabs(home) else None


def _digest(what: Any) -> str:
    return hashlib.sha256(repr((what, _machine())).encode()).hexdigest()


@functools.cache
def _machine() -> tuple[str, ...]:
    """What a program is compiled by and for: versions, and what the processor can do."""
    processor = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        processor = next((line for line in file if line.startswith(("flags", "Features"))), processor)
    client = jax.devices()[0].client
    flags = os.environ.get("XLA_FLAGS", "")
    return (
        jax.__version__,
        importlib.metadata.version("jaxlib"),
        client.platform_version,
        platform.platform(),
        processor,
        flags,
    )


def _write(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, and delete those that were not used for the longest time."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(zlib.compress(data, 1))
    os.replace(file.name, path)
    files = list(path.parent.iterdir())
    if len(files) > MOST_KEPT:
        for old in sorted(files, key=lambda file: file.stat().st_mtime)[: len(files) - MOST_KEPT]:
            old.unlink()
