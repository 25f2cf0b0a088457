from memtenant import Message
from tests.reports.conftest import Scene, statuses, words


async def test_a_tenant_that_is_as_it_should_be_passes(scene: Scene) -> None:
    scene.frameworks = ("GDPR", "HIPAA", "SOX", "PCI_DSS")
    await scene.declare(policy={"legalBasis": "contract"})
    tenant = scene.agent()
    chat = tenant.conversation("s", user="ada")
    await chat.extend([Message.human("hello"), Message.ai("hi")])
    await tenant.shared_context("case").create({"a": 1, "b": 2})
    await scene.seal()
    await chat.append(Message.human("again"))
    report = await scene.report()
    for one in report.results():
        print(one.control.id, one.control.check, one.judgement.status, one.judgement.looked)
        print(words(one))
    print(report.to_json())
    assert statuses(report.results()) == {}
