"""The SDK's figures as docs/performance.md shows them: limits first, then all beside the peers."""

from tests.bench.bystander import OTHERS
from tests.bench.erasure import ErasureCost
from tests.bench.report import Row, grid
from tests.bench.sdk import BATCH, MESSAGE_BYTES, SHARED, SdkResults, Series

_TITLES = {
    "raw": "RPUSH + EXPIRE, one pipeline",
    "memtenant": "memtenant",
    "memtenant-masking": "memtenant, masking on",
    SHARED: SHARED,
    "langchain": "langchain-community, plain",
    "openai": "OpenAI Agents RedisSession, plain",
    "openai-encrypted": "OpenAI Agents EncryptedSession",
}
_ONE_WRITER, _MANY_WRITERS, _MASKING, _ENCRYPTED = 0.75, 0.9, 0.5, 3.0
_FUNCTION, _BATCH = 20e-6, 5.0
_STORED, _IMPORT = 300, 1.3


def rows(results: SdkResults) -> list[Row]:
    """What the design sets a limit for."""
    return [*_appends(results), *_server(results), *_rest(results)]


def erasure_rows(cost: ErasureCost) -> list[Row]:
    """What the others noticed of a person's erasure."""
    others = "… what others wait meanwhile (p99 of a GET), beside idle"
    return [
        Row(
            f"erase one person among {cost.keys:,} keys: SCAN commands in the SDK's part",
            "0",
            f"{cost.scans}, {cost.seconds:.2f} s for {cost.conversations} conversations",
            cost.scans == 0,
        ),
        Row(
            others,
            f"≤ {OTHERS:g} x",
            f"{cost.forget.ratio:.2f} x: {cost.forget}",
            cost.forget.ratio <= OTHERS,
        ),
        Row(
            "… while one agent does nothing but append, for comparison",
            "",
            f"{cost.append.ratio:.2f} x: {cost.append}",
            None,
        ),
        Row(
            f"the operator's pass over all keys, {cost.rescan.worked:.0f} s",
            f"≤ {OTHERS:g} x",
            f"{cost.rescan.ratio:.2f} x: {cost.rescan}",
            cost.rescan.ratio <= OTHERS,
        ),
        Row(
            f"the server writes its files anew, {cost.files.worked:.1f} s",
            "",
            f"{cost.files.ratio:.2f} x: {cost.files}",
            None,
        ),
    ]


def tables(results: SdkResults) -> str:
    """Everything else, as Markdown."""
    parts = []
    for writers, found in results.appends.items():
        who = "one writer" if writers == 1 else f"{writers} writers, each to one of its own"
        told = (
            f"Appends of {MESSAGE_BYTES} bytes by {who}, by the length of the conversation: p50 "
            "and p99 in µs, messages a second, how often as many as the raw pipeline's, the "
            "server's CPU a message."
        )
        parts += (told, _table(found))
    costs = "What one append of one writer costs, and a read of 1,000 messages into objects."
    return "\n\n".join((*parts, costs, _costs(results)))


def _appends(results: SdkResults) -> list[Row]:
    made = []
    for writers, lengths in results.appends.items():
        limit = _ONE_WRITER if writers == 1 else _MANY_WRITERS
        for length, found in lengths.items():
            who = "1 writer" if writers == 1 else f"{writers} writers"
            ratio = found["memtenant"].beside(found["raw"])
            made.append(_least(f"append to {length:,} messages, {who}, beside raw", ratio, limit))
            if writers == 1:
                ratio = found["memtenant-masking"].beside(found["raw"])
                made.append(_least("… with masking", ratio, _MASKING))
            else:
                ratio = found[SHARED].beside(found["raw"])
                made.append(_least("… all on one conversation", ratio, limit))
    for length, found in results.appends[1].items():
        ratio = found["memtenant"].beside(found["openai-encrypted"])
        what = f"append to {length:,} messages, 1 writer, beside EncryptedSession"
        made.append(_least(what, ratio, _ENCRYPTED))
    return made


def _server(results: SdkResults) -> list[Row]:
    single = _single(results)
    each, together = single.function, results.batch.function
    times = results.batch.rate / single.rate
    return [
        Row(
            "time in the Function, an append (the server's count)",
            f"≤ {_FUNCTION * 1e6:.0f} µs",
            f"{each * 1e6:.0f} µs; {together * 1e6:.1f} µs a message in batches of {BATCH}",
            each <= _FUNCTION,
        ),
        _least(f"batches of {BATCH}, messages a second beside one by one", times, _BATCH),
    ]


def _rest(results: SdkResults) -> list[Row]:
    mine, plain = results.reads["memtenant"], results.reads["langchain"]
    stored = results.costs["memtenant"].stored
    imported = results.imports["memtenant"] / results.imports["redis.asyncio"]
    milliseconds = {name: seconds * 1e3 for name, seconds in results.imports.items()}
    return [
        Row(
            "read and decrypt 1,000 messages",
            "≤ langchain-community, plain",
            f"{mine * 1e3:.1f} ms, langchain-community {plain * 1e3:.1f} ms",
            mine <= plain,
        ),
        Row(
            f"bytes in Redis a message of {MESSAGE_BYTES}",
            f"≤ {_STORED}",
            f"{stored:.0f}",
            stored <= _STORED,
        ),
        Row(
            "import of the SDK, beside `import redis.asyncio`",
            f"≤ {_IMPORT} x",
            f"{imported:.2f} x ({milliseconds['memtenant']:.0f} and "
            f"{milliseconds['redis.asyncio']:.0f} ms)",
            imported <= _IMPORT,
        ),
    ]


def _least(what: str, ratio: float, limit: float) -> Row:
    return Row(what, f"≥ {limit:g} x", f"{ratio:.2f} x", ratio >= limit)


def _single(results: SdkResults) -> Series:
    return next(iter(results.appends[1].values()))["memtenant"]


def _table(found: dict[int, dict[str, Series]]) -> str:
    names = next(iter(found.values()))
    lines = ((_TITLES[one], *(_cell(one, beside) for beside in found.values())) for one in names)
    return grid([("", *(f"{length:,}" for length in found)), *lines])


def _cell(name: str, found: dict[str, Series]) -> str:
    if name not in found:
        return "-"
    one = found[name]
    return (
        f"{one.percentile(0.5) * 1e6:.0f}, {one.percentile(0.99) * 1e6:.0f}, {one.rate:,.0f}/s, "
        f"{one.beside(found['raw']):.2f} x, {one.server_cpu * 1e6:.0f} µs"
    )


def _costs(results: SdkResults) -> str:
    cells: list[tuple[str, ...]] = [
        ("", "commands", "bytes sent", "received", "server CPU", "bytes kept", "read of 1,000")
    ]
    single = next(iter(results.appends[1].values()))
    for name, costs in results.costs.items():
        cells.append(
            (
                _TITLES[name],
                f"{costs.commands:.0f}",
                f"{costs.sent:.0f}",
                f"{costs.received:.0f}",
                f"{single[name].server_cpu * 1e6:.0f} µs",
                f"{costs.stored:.0f}",
                f"{results.reads[name] * 1e3:.1f} ms",
            )
        )
    return grid(cells)
