"""About the program itself: its version, its completion."""

from __future__ import annotations

import os
from enum import StrEnum
from importlib import metadata
from typing import Annotated

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]

from memtenant.cli import output

__all__ = ["COMPLETE_ENV", "completion", "version"]

COMPLETE_ENV = "_MEMTENANT_COMPLETE"
"""Set by the shell that asks for completions, as its script says."""


class Shell(StrEnum):
    """Shells that are completed."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def version() -> None:
    """Print the version."""
    output.line(f"memtenant {metadata.version('memtenant')}")


def completion(
    context: typer.Context,
    shell: Annotated[Shell, typer.Argument(help="The shell to complete in.")],
) -> None:
    """Print the completion script of a shell.

    bash:  `source <(memtenant completion bash)` in ~/.bashrc

    zsh:   `source <(memtenant completion zsh)` in ~/.zshrc, after compinit

    fish:  `memtenant completion fish > ~/.config/fish/completions/memtenant.fish`
    """
    completion_init()
    os.environ[COMPLETE_ENV] = f"source_{shell.value}"
    try:
        whole = context.find_root().command
        whole.main([], prog_name="memtenant", complete_var=COMPLETE_ENV)
    except SystemExit as ended:
        raise typer.Exit(int(ended.code or 0)) from None
    finally:
        del os.environ[COMPLETE_ENV]
