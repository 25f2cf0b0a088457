"""A tenant on the developer's own machine, and the fixtures for users' tests."""

import textwrap
from pathlib import Path

import pytest

from memtenant import Message, Tenant
from memtenant.errors import UsageError
from memtenant.memory import development

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.redis


async def test_dev_makes_a_tenant_and_opens_it_again(tmp_path: Path) -> None:
    state = tmp_path / "state"
    try:
        async with Tenant.dev("acme", state=state) as tenant:
            assert tenant.info().tenant == "dev.acme"
            await tenant.conversation("s", user="ada").append(Message.human("Hello"))
        async with Tenant.dev("acme", state=state) as tenant:
            messages = await tenant.conversation("s", user="ada").messages()
        assert [one.text for one in messages] == ["Hello"]
    finally:
        development.stop(state)


def test_dev_says_what_the_program_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="DNS label"):
        Tenant.dev("Not A Name", state=tmp_path / "state")
    development.stop(tmp_path / "state")


def test_the_fixtures_give_each_test_a_tenant_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["memtenant.testing"]')
    pytester.makepyfile(
        textwrap.dedent("""
            import pytest
            from memtenant import Message
            from memtenant.errors import QuotaExceeded
            from memtenant.sync import Tenant

            @pytest.fixture
            def memtenant_spec():
                return {"quota": {"memory": "1Mi", "conversations": 1}}

            @pytest.mark.parametrize("again", range(2))
            def test_tenant(memtenant_tenant, again):
                chat = memtenant_tenant.conversation("s", user="ada")
                assert chat.messages() == []
                chat.append(Message.human("Hello"))
                with pytest.raises(QuotaExceeded):
                    memtenant_tenant.conversation("t", user="ada").append(Message.human("x"))

            def test_binding(memtenant_binding):
                with Tenant.from_binding() as tenant:
                    assert tenant.info().binding_folder == memtenant_binding
        """)
    )
    pytester.runpytest_subprocess("-p", "no:asyncio").assert_outcomes(passed=3)
