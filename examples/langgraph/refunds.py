"""A LangGraph agent that waits for a person's approval, its state in a tenant's memory.

    pip install 'memtenant[dev,langgraph]'
    python examples/langgraph/refunds.py

No network and no model: the step that a model would take is scripted. The tenant is made by
``Tenant.dev``; in a cluster it is ``Tenant.from_binding()``.
"""

import asyncio
import operator
from typing import Annotated, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from memtenant import Tenant
from memtenant.langgraph import Saver


class Refund(TypedDict, total=False):
    """The state of one case."""

    request: str
    log: Annotated[list[str], operator.add]


def propose(state: Refund) -> Refund:
    """What a model would decide."""
    return {"log": [f"propose a refund for: {state['request']}"]}


def approve(state: Refund) -> Refund:
    """Stops here until somebody answers; the process may end meanwhile."""
    answer = interrupt({"question": "Pay 12 EUR?"})
    return {"log": [f"approval: {answer}"]}


async def main() -> None:
    """One case: asked, answered, and looked back on."""
    builder = StateGraph(Refund)
    builder.add_node("propose", propose)
    builder.add_node("approve", approve)
    builder.add_edge(START, "propose")
    builder.add_edge("propose", "approve")
    builder.add_edge("approve", END)
    async with Tenant.dev("refunds") as tenant:
        saver = Saver(tenant, subject="ada@example.org")
        await saver.adelete_thread("case-4711")  # of the run before
        graph = builder.compile(checkpointer=saver)
        thread: RunnableConfig = {"configurable": {"thread_id": "case-4711"}}
        asked = await graph.ainvoke({"request": "lost parcel"}, thread)
        print("waits for:", asked["__interrupt__"][0].value["question"])
        done = await graph.ainvoke(Command(resume="yes"), thread)
        print(*done["log"], sep="\n")
        states = [state async for state in graph.aget_state_history(thread)]
        print(f"{len(states)} checkpoints, {(await tenant.usage()).bytes} bytes in the tenant")


if __name__ == "__main__":
    asyncio.run(main())
