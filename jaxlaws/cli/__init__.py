"""The `jaxlaws` command: laws for tables in files, searches with them, and what is known about them.

Each module has some of the commands, and tells the parser their options with `add_commands`; but `shared` has what all
of them share, and `search` what those share that search.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax

import jaxlaws
from jaxlaws.cli import about, allocation, fitting, holdout, mixture, plot, prediction
from jaxlaws.cli.shared import NotFoundError, in_options, one_line, own_error, warn
from jaxlaws.law import UnknownNameError
from jaxlaws.proportions import ProportionsWarning
from jaxlaws.ranges import RangeWarning
from jaxlaws.tables import DataError, MissingWarning

__all__ = ["main"]

OURS = (MissingWarning, ProportionsWarning, RangeWarning)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments; by default those of the process.

    Returns:
        The exit status: 0, 1 for a search or a fit without an answer, or 2 for bad input.
    """
    if argv is None:
        _settle()
    status = _run(_arguments(argv))
    if argv is None:
        # At once: threads of Arrow may still be reading, and abort a process that is being taken down; and taking
        # down what is imported takes longer than many a run.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, AttributeError):
                stream.flush()
        os._exit(status)
    return status


def _settle() -> None:
    """Set what only the command may set, in a process of its own."""
    gc.freeze()  # what is imported is no garbage, and is not looked through again
    if "JAX_LOGGING_LEVEL" not in os.environ:
        jax.config.update("jax_logging_level", "CRITICAL")  # a program that does not fit the processor is made again
    if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(number: int, frame: Any) -> None:
    """End the process at once: an exception may arrive where exceptions are ignored, and threads of XLA go on."""
    if sys.stderr is not None and sys.stderr.isatty():
        os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # show the cursor, which a progress bar hides
    terminate = signal.getsignal(signal.SIGTERM)
    if callable(terminate):
        terminate(number, frame)  # which removes what is half-written
    os._exit(128 + number)


def _run(args: argparse.Namespace) -> int:
    try:
        if sys.stdout is None:
            raise DataError("standard output is closed")
        with _own_warnings():
            args.run(args)
        sys.stdout.flush()
    except (DataError, UnknownNameError) as error:
        return _fail(_of_own_law(error) or in_options(str(error)))
    except NotFoundError as error:
        return _fail(error, status=1)
    except BrokenPipeError:  # the reader of the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # files tell their names
        place = error.filename or ("standard output" if full else "")
        return _fail(f"{place}: {reason}" if place else reason)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if told := _of_own_law(error):
            return _fail(told)
        raise
    return 0


@contextlib.contextmanager
def _own_warnings() -> Iterator[None]:
    """Prints the warnings of the package in the end, a line each, in the words of the command; not before an error."""
    said: dict[str, None] = {}  # each but once
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, OURS):
                said[in_options(str(message))] = None
            else:
                others(message, category, *where, **more)

        for category in OURS:
            warnings.simplefilter("always", category)
        warnings.showwarning = show
        try:
            yield
        except NotFoundError:  # the answers that there are have been printed
            list(map(warn, said))
            raise
    list(map(warn, said))


def _of_own_law(error: Exception) -> str:
    """What to say of an error that a law in a file raised; nothing of others, or where that is said already."""
    told = own_error(error)
    return f"{told}; jaxlaws.testing.check_law tests a law" if told and told not in str(error) else ""


def _fail(message: object, status: int = 2) -> int:
    print(one_line(f"jaxlaws: {message}"), file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any):
        super().__init__(**options)
        self._negative_number_matcher = re.compile(r"-\.?\d")  # -1e22, -1% and -1,2 are no options

    def error(self, message: str) -> NoReturn:
        self.exit(2, one_line(f"{self.prog}: {message} (see {self.prog} --help)") + "\n")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args, others = parser.parse_known_args(argv)
    if hasattr(args, "problems") and not any(word.startswith("-") for word in others):
        args.problems += others  # argparse gives a list that may be empty nothing that comes after an option
    elif others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    return args


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxlaws",
        description="Predict and minimise the loss of language models with scaling laws.",
        epilog='"jaxlaws COMMAND --help" shows the options of a command, with examples. Compiled programs are kept '
        "for the next run in $XDG_CACHE_HOME/jaxlaws, by default ~/.cache/jaxlaws; JAXLAWS_CACHE names another folder, "
        "and keeps none if it is empty.",
    )
    parser.add_argument("--version", action="version", version=f"jaxlaws {jaxlaws.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[Any], None], summary: str, examples: str, more: str = "") -> Any:
        sub = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.\n\n{more}".rstrip(),
            epilog="examples:\n" + "".join(f"  {line}\n" for line in examples.splitlines()),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    for module in (about, prediction, fitting, holdout, plot, mixture, allocation):
        module.add_commands(command)
    return parser
