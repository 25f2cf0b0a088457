"""Options that several commands share, so that each means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memtenant.cli import output
from memtenant.cli.output import Format
from memtenant.cli.server import PASSWORD_ENV, Server, given_server
from memtenant.errors import UsageError

__all__ = [
    "Files",
    "Home",
    "KubeContext",
    "Kubeconfig",
    "Namespace",
    "OptionalFiles",
    "Output",
    "Redis",
    "RedisCa",
    "RedisPasswordFile",
    "State",
    "is_typed",
    "redis_server",
]

_FILES_HELP = "Manifests: files, folders, or - for the standard input. May be repeated."

Files = Annotated[
    list[Path],
    typer.Option("--filename", "-f", metavar="FILES", help=_FILES_HELP, show_default=False),
]
OptionalFiles = Annotated[
    list[Path] | None,
    typer.Option("--filename", "-f", metavar="FILES", help=_FILES_HELP, show_default=False),
]
Namespace = Annotated[
    str,
    typer.Option("--namespace", "-n", metavar="NAME", help="For objects that name no namespace."),
]
State = Annotated[
    Path,
    typer.Option(
        "--state",
        metavar="DIR",
        envvar="MEMTENANT_STATE",
        help="The folder that holds everything without a cluster.",
    ),
]
Output = Annotated[
    Format, typer.Option("--output", "-o", help="table or wide for people, json or yaml.")
]
Redis = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="MEMTENANT_REDIS",
        show_envvar=True,
        help="redis[s]://USER@HOST:PORT instead of the embedded Valkey.",
    ),
]
RedisPasswordFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"Holds the password of --redis; or set {PASSWORD_ENV}.",
        show_default=False,
    ),
]
RedisCa = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The CA (PEM) of a rediss:// server; else the system's.",
        show_default=False,
    ),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Ask the cluster of this kubeconfig.", show_default=False),
]
KubeContext = Annotated[
    str | None,
    typer.Option(
        "--context", metavar="NAME", help="Ask the cluster of this context.", show_default=False
    ),
]
Home = Annotated[str, typer.Option(metavar="NAME", help="In a cluster: the operator's namespace.")]


def is_typed(context: typer.Context, parameter: str) -> bool:
    """Whether the option was given in the command line and not by the environment."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def redis_server(
    context: typer.Context, url: str | None, password_file: Path | None, ca: Path | None
) -> Server | None:
    """The server that the options name, or None. Warns of a password in the command line."""
    if url is None:
        if password_file is not None or ca is not None:
            raise UsageError("--redis-password-file and --redis-ca go with --redis: give its URL")
        return None
    if is_typed(context, "redis") and ":" in url.partition("://")[2].rpartition("@")[0]:
        output.warn(
            "the password in --redis is visible to every user of this machine: use "
            f"--redis-password-file or {PASSWORD_ENV}"
        )
    return given_server(url, password_file=password_file, ca_file=ca)
