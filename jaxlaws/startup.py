"""What the command does before all the rest is imported, so that Ctrl-C ends it without a traceback from then on."""

import os
import signal
import sys

__all__ = ["end_when_interrupted"]


def end_when_interrupted() -> None:
    """Let Ctrl-C end this process as it ends other programs, if it is the command and not a user's."""
    if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _is_command() -> bool:
    name: str = getattr(sys, "argv", [""])[0]
    if name == "-m":  # python -m jaxlaws, which is not looked up yet
        return sys.orig_argv[-len(sys.argv)].removeprefix("-m") == "jaxlaws"
    return os.path.splitext(os.path.basename(name))[0] == "jaxlaws"
