"""``memtenant store``: what a server needs before the operator can work on it."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import typer

from memtenant.cli import options, output
from memtenant.cli.server import Server
from memtenant.errors import StoreRefused, UsageError
from memtenant.stores import Address, StoreSettings, StoreTls, admin_rules
from memtenant.stores.connection import NodeClient

__all__ = ["store"]

store = typer.Typer(
    help="What a server needs before the operator can work on it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_PLACEHOLDER = "REPLACE-WITH-A-PASSWORD"
_VERSION = re.compile(r"(?:redis|valkey)?[-: ]?v?(\d{1,3})(?:\.(\d{1,3}))?(?:\.\d{1,3})?")
_OLDEST = (7, 0)
_SETINFO_SINCE = (7, 2)
"""CLIENT SETINFO: the one command that the operator uses and Redis 7.0 does not have."""


@store.callback()
def _group() -> None:
    """What a server needs before the operator can work on it."""


@store.command()
def acl(
    context: typer.Context,
    version: Annotated[
        str | None,
        typer.Option("--server", metavar="VERSION", help="As 7.0, 8.2 or valkey-9.1."),
    ] = None,
    redis: options.Redis = None,
    redis_password_file: options.RedisPasswordFile = None,
    redis_ca: options.RedisCa = None,
    username: Annotated[
        str, typer.Option(metavar="NAME", help="The MemoryStore's adminUsername.")
    ] = "memtenant",
    aclfile: Annotated[
        bool, typer.Option("--aclfile", help="Print a line for users.acl instead of a command.")
    ] = False,
) -> None:
    """Print the least-privileged ACL user that the operator needs.

    Rules are for the commands of the server: ask the one of --redis, or name its version. With
    neither, they work on every supported server. Replace the password before use.

    Examples:

        memtenant store acl --server 8.2

        memtenant store acl --aclfile >> users.acl
    """
    if not re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9_.]*", username):
        raise UsageError("--username: write letters, digits and inner - _ .")
    if version is not None:
        known = _known_version(version)
        extra = ("+client|setinfo",) if known >= _SETINFO_SINCE else ()
        rules = (*admin_rules(), *extra)
    elif server := options.redis_server(context, redis, redis_password_file, redis_ca):
        rules = admin_rules(asyncio.run(_commands(server)))
    else:
        rules = admin_rules()
    words = " ".join((username, "reset", "on", f">{_PLACEHOLDER}", *rules))
    output.raw(f"user {words}" if aclfile else f"ACL SETUSER {words}")


def _known_version(text: str) -> tuple[int, int]:
    found = _VERSION.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(f"--server: {text!r} is no version: write 7.0, 8.2 or valkey-9.1")
    version = int(found.group(1)), int(found.group(2) or 0)
    if version < _OLDEST:
        raise UsageError("--server: memtenant needs Redis 7.0 or later, or Valkey")
    return version


async def _commands(server: Server) -> frozenset[str]:
    """Every command and subcommand of the server."""
    host, _, port = server.endpoint.rpartition(":")
    settings = StoreSettings(
        Address(host.strip("[]"), int(port)),
        server.username,
        lambda: server.password,
        StoreTls(ca=server.ca or None) if server.tls else None,
    )
    client = NodeClient(settings.endpoint, settings)
    try:
        names = await client.call("COMMAND", "LIST")
    finally:
        await client.close()
    if not isinstance(names, list):
        raise StoreRefused(f"{server.endpoint} answered COMMAND LIST in an unknown way")
    return frozenset(name.decode().lower() for name in names if isinstance(name, bytes))
