"""What is picked to be opened: from everywhere, and never more than there is room for."""

from memtenant.reports.samples import Sample, sample_size


def test_a_sample_has_its_size_whatever_records_have() -> None:
    sample = Sample(20)
    for number in range(10_000):
        sample.offer(b"r:_:x:l", "message", bytes(number % 30_000))
    assert 0 < len(sample.records) <= 20
    assert sum(len(record) for _, _, record in sample.records) <= 20 * 4096
    assert sample.seen == 10_000
    sample.offer(b"r:_:x:l", "message", bytes(1024 * 1024))
    assert max(len(record) for _, _, record in sample.records) < 1024 * 1024


def test_of_many_tenants_fewer_records_are_picked_of_each() -> None:
    assert [sample_size(many) for many in (0, 1, 50, 1_000, 100_000)] == [1000, 1000, 1000, 50, 20]
