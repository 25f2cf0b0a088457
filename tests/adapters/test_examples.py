"""The examples of the adapters do what they say, on a tenant of the test's."""

import asyncio
import runpy
from pathlib import Path

import pytest

from memtenant import Tenant
from tests.memory.bindings import PATIENT, Provisioned

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("example", "says"),
    [
        ("langgraph/refunds.py", ["waits for: Pay 12 EUR?", "approval: yes", "4 checkpoints"]),
        ("langchain/questions.py", ["the model: I was given ", "the tenant has 40 messages"]),
        ("openai_agents/parcels.py", ["You asked: Where is it? And now?", "human 'And now?'"]),
    ],
)
def test_an_example_runs_twice_without_a_network(
    acme: Provisioned,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    example: str,
    says: list[str],
) -> None:
    monkeypatch.setattr(Tenant, "dev", lambda name: Tenant(acme.source(), options=PATIENT))
    for _ in range(2):
        asyncio.run(runpy.run_path(str(EXAMPLES / example))["main"]())
        told = capsys.readouterr().out
        assert [line for line in says if line not in told] == []
