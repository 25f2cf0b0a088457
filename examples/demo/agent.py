"""An agent as small as can be: opens the memory that its binding names, and runs Redis commands.

    SERVICE_BINDING_ROOT=/bindings python agent.py acme-triage SET 'mt:{support.acme}:r:note' hello

Several commands are separated by `--`. A binding is a folder with a file for each field, as the
Service Binding specification has it, so any Redis client can use one. Prints each command and what
the server says to it, a refusal too, and ends with 0 if the server could be asked.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def connect(binding: Path) -> redis.Redis:
    """A client with the binding's credentials."""
    return open_uri((binding / "uri").read_text())


def open_uri(uri: str) -> redis.Redis:
    """A client that fails at once and shows replies as the server sends them."""
    client = redis.Redis.from_url(uri, decode_responses=True, retry=Retry(NoBackoff(), 0))
    client.response_callbacks.clear()
    return client


def ask(client: redis.Redis, *command: str) -> str:
    """The server's answer, or its words of refusal: they begin with NOPERM."""
    try:
        return str(client.execute_command(*command))  # type: ignore[no-untyped-call]
    except redis.exceptions.NoPermissionError as refusal:
        words = str(refusal)
        return words if words.startswith("NOPERM") else f"NOPERM {words}"


def commands(words: list[str]) -> Iterator[list[str]]:
    """The words between `--`."""
    command: list[str] = []
    for word in [*words, "--"]:
        if word != "--":
            command.append(word)
        elif command:
            yield command
            command = []


def main() -> None:
    """Run the commands of the command line."""
    name, *words = sys.argv[1:]
    with connect(Path(os.environ["SERVICE_BINDING_ROOT"]) / name) as client:
        for command in commands(words):
            print(f"> {' '.join(command)}")
            print(ask(client, *command), flush=True)


if __name__ == "__main__":
    main()
