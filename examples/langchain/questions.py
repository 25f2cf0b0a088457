"""A LangChain agent whose memory is a tenant's, of which the model is given what a budget takes.

    pip install 'memtenant[dev,langchain]'
    python examples/langchain/questions.py

No network: the model is scripted. The tenant is made by ``Tenant.dev``; in a cluster it is
``Tenant.from_binding()``.
"""

import asyncio
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig

from memtenant import ContextBudget, Tenant
from memtenant.langchain import Memory


class Scripted(BaseChatModel):
    """Stands for a model: says how much it was given."""

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        first = next(one for one in messages if isinstance(one, HumanMessage))
        answer = AIMessage(
            f"I was given {len(messages)} messages, from {str(first.content)[:11]!r}"
        )
        return ChatResult(generations=[ChatGeneration(message=answer)])

    @property
    def _llm_type(self) -> str:
        return "scripted"


async def main() -> None:
    """Twenty questions, more than the budget takes."""
    async with Tenant.dev("questions") as tenant:
        chat = tenant.conversation("ticket-4711", user="ada@example.org")
        await chat.delete()  # of the run before
        memory = Memory(tenant, subject="ada@example.org", budget=ContextBudget(1000))
        agent = create_agent(Scripted(), system_prompt="Be brief.", middleware=[memory])
        thread: RunnableConfig = {"configurable": {"thread_id": "ticket-4711"}}
        for number in range(20):
            question = f"Question {number:2}: where is order {4711 + number}, please? " * 3
            said = await agent.ainvoke({"messages": [HumanMessage(question)]}, thread)
        print("the model:", said["messages"][-1].content)
        print("the tenant has", await chat.count(), "messages")


if __name__ == "__main__":
    asyncio.run(main())
