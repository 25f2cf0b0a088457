"""An agent with nothing but its binding and a plain Redis client.

It writes under its own tenant's prefix, reads it back, and asks for a neighbour's key.

    memtenant apply -f examples/local
    SERVICE_BINDING_ROOT=.memtenant/bindings/support python examples/local/greeter.py
"""

import os
import sys
from pathlib import Path

import redis


def main() -> None:
    """Remember one greeting more, and try what is not allowed."""
    root = os.environ.get("SERVICE_BINDING_ROOT")
    if root is None:
        sys.exit("set SERVICE_BINDING_ROOT to what `memtenant apply` printed")
    binding = Path(root) / "acme-triage"
    tenant = (binding / "tenantId").read_text()
    key = f"mt:{{{tenant}}}:r:example:greetings:l"
    with redis.Redis.from_url((binding / "uri").read_text(), decode_responses=True) as agent:
        agent.rpush(key, "hello")
        print(f"{tenant} remembers {agent.llen(key)} greetings")
        try:
            agent.lrange("mt:{sales.globex}:r:example:greetings:l", 0, -1)
        except redis.exceptions.NoPermissionError as denied:
            print(f"a neighbour's key: {denied}")


if __name__ == "__main__":
    main()
