"""An agent that remembers: it needs nothing but its mounted binding.

    SERVICE_BINDING_ROOT=… python examples/agent/helpdesk.py helpdesk-triage "Where is my order?"

Says what it remembers of the user, answers (by a rule instead of a model), and counts in a context
that all agents of the tenant share.
"""

import argparse
import asyncio

from memtenant import Message, Tenant
from memtenant.errors import MemtenantError, QuotaExceeded


async def main() -> None:
    """One turn of a conversation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("binding", help="its folder's name below $SERVICE_BINDING_ROOT")
    parser.add_argument("question", nargs="?", default="Where is my order?")
    parser.add_argument("--user", default="ada@example.org")
    options = parser.parse_args()
    async with Tenant.from_binding(options.binding) as tenant:
        await turn(tenant, options.user, options.question)


async def turn(tenant: Tenant, user: str, question: str) -> None:
    """Read what fits into a prompt, answer, and remember both."""
    chat = tenant.conversation("orders", user=user, title="Orders")
    for stored in await chat.window(max_tokens=500):
        print(f"  {stored.time:%H:%M:%S} {stored.role}: {stored.text}")
    answer = f"I noted: {question!r}, your question number {await chat.count() // 2 + 1}."
    try:
        await chat.extend([Message.human(question), Message.ai(answer)], on_limit="wait")
    except QuotaExceeded as full:
        print(f"Not remembered: {full}")
    print(f"  now: {answer}")
    board = tenant.shared_context("statistics")
    await board.update(lambda values: {"questions": values.get("questions", 0) + 1})
    total = (await board.read()).values["questions"]
    usage = await tenant.usage()
    print(f"{tenant.info().agent}: {total} questions at all, {usage.bytes} bytes used")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except MemtenantError as error:
        raise SystemExit(f"{error.reason}: {error}") from None
