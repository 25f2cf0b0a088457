"""A help desk whose agents remember: each needs nothing but its mounted binding.

    export SERVICE_BINDING_ROOT=.memtenant/bindings/helpdesk
    python examples/agent/helpdesk.py helpdesk-triage ask "Where is my parcel?"
    python examples/agent/helpdesk.py helpdesk-answers claim ticket-7
    python examples/agent/helpdesk.py helpdesk-privacy forget --consent letter-2026-11

A rule answers and another one summarises, where a real agent has a model: nothing here needs a
network beyond the store's.
"""

import argparse
import asyncio

from memtenant import ContextBudget, Message, PromptContext, SummaryRequest, Tenant
from memtenant.errors import MemtenantError, QuotaExceeded, VersionConflict

PROMPT_TOKENS = 200


async def summarise(request: SummaryRequest) -> dict[str, str]:
    """What a model would do with `SummaryRequest.prompt`: the user's sentences, one after another.

    It sees the messages as they are stored: masked, where the tenant masks.
    """
    told = [request.previous.text] if request.previous else []
    told += [one.text for one in request.messages if one.role == "human"]
    return {"summary": " ".join(told)[-600:]}


async def ask(tenant: Tenant, user: str, questions: list[str]) -> None:
    """A turn for each question: what fits into a prompt is read, both sides are remembered."""
    chat = tenant.conversation("parcels", user=user, title="Parcels")
    for question in questions:
        prompt = await chat.context(ContextBudget(PROMPT_TOKENS, summariser=summarise))
        if question == questions[-1]:
            show(prompt)
        answer = f"I noted that as number {await chat.count() // 2 + 1}, and will look into it."
        try:
            receipt = await chat.extend(
                [Message.human(question), Message.ai(answer)], on_limit="wait"
            )
        except QuotaExceeded as full:
            print(f"not remembered: {full}")
            return
        for detector, count in receipt.masked.items():
            print(f"masked before it was stored: {count} x {detector}")
    print(f"answer: {answer}")
    await tenant.shared_context("board").update(
        lambda values: {"questions": values.get("questions", 0) + len(questions)}
    )


def show(prompt: PromptContext) -> None:
    """What a model would be given."""
    if prompt.summary is not None:
        print(f"summary of the oldest messages: {prompt.summary.text}")
    for stored in prompt.messages:
        print(f"remembered {stored.role}: {stored.text}")


async def claim(tenant: Tenant, ticket: str) -> None:
    """Take a ticket that nobody has: of several agents exactly one succeeds."""
    me = tenant.info().agent
    try:
        await tenant.shared_context("board").update({ticket: me}, expected={ticket: 0})
    except VersionConflict as conflict:
        print(f"{ticket} is taken: {getattr(conflict.current, 'values', {}).get(ticket)} has it")
    else:
        print(f"{ticket} is mine: {me}")


async def status(tenant: Tenant) -> None:
    """Who did what, and how much of the quota is used."""
    for agent in await tenant.agent_status():
        print(f"{agent.agent}: {agent.state}, {agent.writes} writes")
    values = (await tenant.shared_context("board").read()).values
    usage = await tenant.usage()
    print(f"{values.get('questions', 0)} questions, {usage.conversations} conversations")


async def forget(tenant: Tenant, user: str, consent: str | None) -> None:
    """Erase a person: everything that is kept of them. May be repeated, and says how far it is."""
    receipt = await tenant.forget(user, consent_reference=consent)
    receipt = await tenant.erasure(receipt.id) or receipt
    print(f"erasure {receipt.id}: {receipt.phase}")
    if receipt.deleted_at is not None:
        print(f"deleted: {receipt.conversations} conversations; left: {receipt.remaining}")
    for residual in receipt.residuals:
        print(f"residual: {residual}")


async def main() -> None:
    """One command of one agent."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("binding", help="its folder's name below $SERVICE_BINDING_ROOT")
    commands = parser.add_subparsers(dest="command", required=True)
    turn = commands.add_parser("ask", help="ask, and be remembered")
    turn.add_argument("question", nargs="+")
    taking = commands.add_parser("claim", help="take a ticket that nobody has")
    taking.add_argument("ticket")
    commands.add_parser("status", help="who did what")
    erasing = commands.add_parser("forget", help="erase a user (access Steward)")
    erasing.add_argument("--consent", help="reference of the request or consent")
    for command in (turn, erasing):
        command.add_argument("--user", default="ada@example.org", help="whose data it is")
    options = parser.parse_args()
    async with Tenant.from_binding(options.binding) as tenant:
        match options.command:
            case "ask":
                await ask(tenant, options.user, options.question)
            case "claim":
                await claim(tenant, options.ticket)
            case "status":
                await status(tenant)
            case _:
                await forget(tenant, options.user, options.consent)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except MemtenantError as error:
        raise SystemExit(f"{error.reason}: {error}") from None
