"""The report as one page for people: nothing is loaded from elsewhere, and nothing runs in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Final

from memtenant.clock import rfc3339
from memtenant.reports.checks import Status
from memtenant.reports.report import ControlResult, FrameworkResult, Report, Row

__all__ = ["page"]

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_MEANINGS: Final = {
    Status.FAIL: "does not hold",
    Status.ERROR: "evidence is missing",
    Status.WARN: "holds, look at it",
    Status.MANUAL: "for a person to judge",
    Status.SKIP: "not applicable, or not decrypted",
    Status.PASS: "holds, on the evidence told",
}


def page(report: Report) -> str:
    """The whole page. Whatever comes from objects, servers or the log stands in it as text."""
    return "".join(
        [
            "<!doctype html>\n",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Compliance report: {escape(report.policy)}</title>",
            f"<style>{files(__package__).joinpath('page.css').read_text()}</style>",
            "</head><body><main>\n",
            *_head(report),
            *_difference(report.difference),
            *_recommendations(report.recommendations),
            *(line for one in report.frameworks for line in _framework(one)),
            *_tenants(report.tenants),
            *_stores(report.stores),
            *_events(report.events),
            *_log(report.log),
            *_foot(report),
            "</main></body></html>\n",
        ]
    )


def _head(report: Report) -> Iterator[str]:
    counts = report.counts()
    yield f"<h1>Compliance report: {escape(report.policy)}</h1>\n"
    yield (
        f'<p class="lead">{_time(rfc3339(report.made))} · generation {report.generation} of the '
        f"policy · {_many(len(report.tenants), 'tenant')} · events from "
        f"{_time(rfc3339(report.period.since))} to {_time(rfc3339(report.period.until))}</p>\n"
    )
    yield '<section class="tiles" aria-label="Summary">'
    for status in Status:
        many = counts[status.value]
        none = "" if many else " none"
        yield (
            f'<div class="tile{none}"><b class="{status}">{many}</b>'
            f'<span class="{status}">{status}</span><br>'
            f'<span class="soft">{_MEANINGS[status]}</span></div>'
        )
    yield "</section>\n"
    if not report.frameworks:
        yield (
            '<p class="card">The policy names no framework, so there is no control to judge. '
            "Set <code>spec.frameworks</code>.</p>\n"
        )


def _difference(found: Row | None) -> Iterator[str]:
    if found is None:
        return
    yield f'<h2>Since {_time(str(found.get("since", "")))}</h2>\n<div class="card">'
    turned = _rows(found.get("turned"))
    if turned:
        yield "<ul>"
        for one in turned:
            yield (
                f"<li>{_pill(str(one['before']))} → {_pill(str(one['after']))} "
                f"{escape(str(one['framework']))} {escape(str(one['control']))}: "
                f"{escape(str(one['title']))}</li>"
            )
        yield "</ul>"
    else:
        yield "<p>No control turned.</p>"
    for words, name in (
        ("New tenants", "tenantsAdded"),
        ("Tenants that are gone", "tenantsGone"),
        ("New controls", "controlsAdded"),
        ("Controls that are gone", "controlsGone"),
    ):
        if names := _texts(found.get(name)):
            shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if names[20:] else "")
            yield f"<p>{words}: {escape(shown)}</p>"
    yield "</div>\n"


def _recommendations(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield "<h2>What to do</h2>\n"
    for row in rows:
        status = str(row["status"])
        yield f'<div class="card todo {escape(status)}"><p class="do">{_code(str(row["do"]))}</p>'
        yield (
            f'<p class="soft">{_pill(status)} {escape(str(row["severity"]))} · '
            f"{escape(', '.join(_texts(row.get('controls'))))}</p>"
        )
        yield _list(_texts(row.get("because")))
        yield "</div>\n"


def _framework(framework: FrameworkResult) -> Iterator[str]:
    yield f"<h2>{escape(framework.title)}</h2>\n"
    yield (
        f'<p class="soft">{escape(framework.source)}; data of {escape(framework.date)}</p>'
        '<div class="card">\n'
    )
    for result in framework.controls:
        yield from _control(result)
    yield "</div>\n"


def _control(result: ControlResult) -> Iterator[str]:
    control, judgement = result.control, result.judgement
    at = f", {_time(rfc3339(judgement.at))}" if judgement.at else ""
    yield (
        f'<div class="control"><div>{_pill(judgement.status)}</div><div>'
        f"<h3>{escape(control.title)}</h3>"
        f'<div class="clause">{escape(control.clause)} · {control.severity}</div>'
        f'<p class="looked">{_code(judgement.looked or control.why)}{at}</p>'
    )
    yield _list(
        (f"{one.subject}: {one.words}" for one in judgement.findings),
        more=judgement.total - len(judgement.findings),
    )
    yield "</div></div>\n"


def _tenants(rows: Sequence[Row]) -> Iterator[str]:
    yield "<h2>Tenants</h2>\n"
    if not rows:
        yield '<p class="card">No tenant is under this policy.</p>\n'
        return
    columns = (
        ("Tenant", ""),
        ("Records", "n"),
        ("Encrypted", "n"),
        ("Told", "n"),
        ("Oldest", ""),
        ("Kept", ""),
        ("Held", ""),
        ("Key", "n"),
        ("Quota", "n"),
        ("Isolation", ""),
        ("Events", "n"),
        ("Persons", "n"),
    )
    yield _table_head(columns)
    for row in rows:
        yield "<tr>"
        gone = "<br>not declared any more" if row.get("gone") else ""
        yield f"<td>{escape(str(row['tenant']))}{gone}{_missing(row)}</td>"
        yield _cells(
            ("n", _number(row, "records")),
            ("n", _of(row, "encrypted", "records")),
            ("n", _of(row, "told", "tellable")),
            ("", _oldest(row)),
            ("", _kept(row)),
            ("", ", ".join(_texts(row.get("heldBy")))),
            ("n", _age(row)),
            ("n", _percent(row)),
            ("", str(row.get("isolation", ""))),
            ("n", _number(row, "events")),
            ("n", _number(row, "subjects")),
        )
        yield "</tr>\n"
    yield "</tbody></table></div>\n"


def _stores(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield "<h2>Stores</h2>\n"
    columns = (("Store", ""), ("Nodes", ""), ("TLS", ""), ("Users compared", "n"), ("Differ", "n"))
    yield _table_head((*columns, ("Anybody gets in", ""), ("Unknown users", "")))
    for row in rows:
        yield f"<tr><td>{escape(str(row['store']))}{_missing(row)}</td>"
        yield _cells(
            ("", ", ".join((*_texts(row.get("nodes")), *_texts(row.get("unreachable"))))),
            ("", "" if "tls" not in row else ("yes" if row["tls"] else "no")),
            ("n", _number(row, "usersCompared")),
            ("n", _number(row, "usersThatDiffer")),
            ("", ", ".join(_texts(row.get("openNodes")))),
            ("", ", ".join(_texts(row.get("strangers")))),
        )
        yield "</tr>\n"
    yield "</tbody></table></div>\n"


def _events(row: Row) -> Iterator[str]:
    yield "<h2>Events of the period</h2>\n"
    for words in _texts(row.get("missing")):
        yield f'<p class="card Error">{escape(words)}</p>\n'
    for title, name in (("By type", "byOperation"), ("By agent", "byAgent")):
        counts = row.get(name)
        if not isinstance(counts, Mapping) or not counts:
            continue
        ordered = sorted(counts.items(), key=lambda one: (-int(one[1]), one[0]))
        most = int(ordered[0][1])
        yield _table_head(((title, ""), ("", ""), ("Events", "n")))
        for key, many in ordered[:40]:
            width = max(1, round(18 * int(many) / most))
            yield (
                f"<tr><td>{escape(str(key))}</td>"
                f'<td><span class="bar" style="width:{width}rem"></span></td>'
                f'<td class="n">{int(many):,}</td></tr>\n'
            )
        yield "</tbody></table></div><p></p>\n"
    yield (
        f'<p class="soft">{_number(row, "refused") or 0} refused; {_number(row, "subjects") or 0} '
        f"persons; {_number(row, 'gaps') or 0} counters missing; {_number(row, 'bad') or 0} "
        "entries that no agent made</p>\n"
    )


def _log(row: Row) -> Iterator[str]:
    yield '<h2>The sealed log</h2>\n<div class="card">'
    if "missing" in row:
        yield f'<p class="Error">{escape(str(row["missing"]))}</p></div>\n'
        return
    yield "<dl>"
    verified = "yes" if row.get("verified") else "no"
    held = "with an earlier checkpoint" if row.get("anchored") else "not against an earlier one"
    for name, value in (
        ("Verified", f"{verified}, {held}"),
        ("Leaves", f"{_number(row, 'size')}"),
        ("Last seal", str(row.get("sealedAt", ""))),
    ):
        yield f"<dt>{name}</dt><dd>{escape(value)}</dd>"
    for words in (*_texts(row.get("problems")), str(row.get("unverified", ""))):
        if words:
            yield f'<dt class="Fail">Problem</dt><dd>{escape(words)}</dd>'
    yield "</dl>"
    if note := str(row.get("checkpoint", "")):
        yield '<p class="soft">Keep this checkpoint: what comes later must contain it.</p>'
        yield f'<pre class="mono">{escape(note)}</pre>'
    yield "</div>\n"


def _foot(report: Report) -> Iterator[str]:
    yield (
        "<footer><p>Technical evidence of memtenant, not a legal judgement: whether an obligation "
        "is met, people decide. A control without its evidence is an error, never a pass; a sample "
        "says how much it saw. The proof of this report is <code>memtenant report verify</code>: "
        "the hash of its manifest is a leaf of the sealed log.</p>"
        f"<p>Installation <code>{escape(report.installation)}</code></p></footer>"
    )


def _table_head(columns: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f'<th class="{kind}">{escape(name)}</th>' if kind else f"<th>{escape(name)}</th>"
        for name, kind in columns
    )
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>\n'


def _cells(*cells: tuple[str, str]) -> str:
    return "".join(
        f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"
        for kind, text in cells
    )


def _missing(row: Row) -> str:
    return (
        f'<br><span class="Error">{escape(str(row["missing"]))}</span>' if "missing" in row else ""
    )


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _pill(status: str) -> str:
    return f'<span class="pill {escape(status)}">{escape(status)}</span>'


def _time(text: str) -> str:
    shown = text.replace("T", " ").replace("Z", " UTC")
    return f'<time datetime="{escape(text)}">{escape(shown)}</time>'


def _code(text: str) -> str:
    """Text in which backquotes mark commands and fields."""
    parts = escape(text).split("`")
    return "".join(
        f"<code>{part}</code>" if place % 2 and place < len(parts) - 1 else part
        for place, part in enumerate(parts)
    )


def _list(items: Iterable[str], more: int = 0) -> str:
    shown = "".join(f"<li>{_code(item)}</li>" for item in items)
    if more > 0:
        shown += f"<li>and {more} more</li>"
    return f"<ul>{shown}</ul>" if shown else ""


def _rows(value: object) -> list[Row]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else []


def _number(row: Row, name: str) -> str:
    value = row.get(name)
    return f"{value:,}" if isinstance(value, int) else ""


def _of(row: Row, name: str, whole: str) -> str:
    part, all_ = row.get(name), row.get(whole)
    return f"{part:,}/{all_:,}" if isinstance(part, int) and isinstance(all_, int) else ""


def _oldest(row: Row) -> str:
    times = row.get("oldest")
    return (
        min((str(one)[:10] for one in times.values()), default="")
        if isinstance(times, Mapping)
        else ""
    )


def _kept(row: Row) -> str:
    bounds = [
        f"{words} {row[name]}"
        for words, name in (("least", "atLeast"), ("most", "atMost"))
        if row.get(name)
    ]
    kept = str(row.get("kept", ""))
    return f"{kept} ({', '.join(bounds)})" if bounds else kept


def _age(row: Row) -> str:
    days = row.get("keyAgeDays")
    return f"v{row.get('keyVersion')}, {days} d" if isinstance(days, int) and days >= 0 else ""


def _percent(row: Row) -> str:
    value = row.get("quotaPercent")
    return f"{value} %" if isinstance(value, int) and value >= 0 else ""
