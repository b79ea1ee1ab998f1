"""."""

from typing import Any


def add_commands(command: Any) -> None:
    """."""
