"""An agent of OpenAI's Agents SDK whose session is a tenant's conversation.

    pip install 'memtenant[dev,openai-agents]'
    python examples/openai_agents/parcels.py

No network: the model is scripted. The tenant is made by ``Tenant.dev``; in a cluster it is
``Tenant.from_binding()``.
"""

import asyncio
from typing import Any

from agents import Agent, ModelResponse, RunConfig, Runner, Usage
from agents.models.interface import Model
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from memtenant import Tenant
from memtenant.openai_agents import Session


class Scripted(Model):
    """Stands for a model: says what it remembers."""

    async def get_response(self, *_: Any, **request: Any) -> ModelResponse:
        """The questions that it was given."""
        asked = [item["content"] for item in request["input"] if item.get("role") == "user"]
        text = ResponseOutputText(
            annotations=[], text="You asked: " + " ".join(asked), type="output_text"
        )
        answer = ResponseOutputMessage(
            id="m", content=[text], role="assistant", status="completed", type="message"
        )
        return ModelResponse(output=[answer], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        """Not needed here."""
        raise NotImplementedError


async def main() -> None:
    """Two runs of one session."""
    async with Tenant.dev("parcels") as tenant:
        session = Session(tenant, "ticket-4711", user="ada@example.org")
        await session.clear_session()  # of the run before
        agent = Agent(name="parcels", model=Scripted())
        offline = RunConfig(tracing_disabled=True)
        for question in ("Where is it?", "And now?"):
            ended = await Runner.run(agent, question, session=session, run_config=offline)
            print(ended.final_output)
        stored = await session.conversation.messages()
        print("stored:", ", ".join(f"{one.role} {one.text!r}" for one in stored))


if __name__ == "__main__":
    asyncio.run(main())
