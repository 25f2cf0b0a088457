"""Texts with personal data at known places, made from a seed. Shares no code with the detectors.

What is hard is in it on purpose: values in forms that no pattern knows, and what looks like a value
and is none.
"""

import random
import string
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SEED = 20261128

Make = Callable[[random.Random], str]


@dataclass(frozen=True, slots=True)
class Label:
    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Sample:
    text: str
    labels: tuple[Label, ...]


def corpus(seed: int = SEED, per_kind: int = 400, negatives: int = 3000) -> Iterator[Sample]:
    """``per_kind`` texts with a value of each kind, and ``negatives`` without any."""
    dice = random.Random(seed)
    for kind, (templates, make) in KINDS.items():
        for _ in range(per_kind):
            yield _sample(dice, dice.choice(templates), {"X": (kind, make)})
    for _ in range(per_kind):
        yield _sample(dice, dice.choice(MIXED), {})
    for _ in range(negatives):
        yield Sample(f"{_harmless(dice)} {_harmless(dice)}", ())


def _sample(dice: random.Random, template: str, own: dict[str, tuple[str, Make]]) -> Sample:
    """The template with its ``{name}`` filled in, between sentences that say nothing."""
    parts: list[str] = []
    labels: list[Label] = []
    length = 0

    def put(text: str) -> None:
        nonlocal length
        parts.append(text)
        length += len(text)

    if dice.random() < 0.5:
        put(_harmless(dice) + " ")
    for literal, name, _, _ in string.Formatter().parse(template):
        put(literal)
        if name is None:
            continue
        kind, make = own.get(name) or _kind(name)
        value = make(dice)
        labels.append(Label(length, length + len(value), kind))
        put(value)
    if dice.random() < 0.5:
        put(" " + _harmless(dice))
    return Sample("".join(parts), tuple(labels))


def _kind(name: str) -> tuple[str, Make]:
    return ("SocialSecurity", ssn_typed) if name == "Typed" else (name, KINDS[name][1])


# --- values ------------------------------------------------------------------------------------


def digits(dice: random.Random, count: int) -> str:
    return "".join(dice.choices("0123456789", k=count))


def word(dice: random.Random, least: int = 3, most: int = 9) -> str:
    return "".join(dice.choices(string.ascii_lowercase, k=dice.randint(least, most)))


def with_check_digit(body: str) -> str:
    """The body and the digit that makes it pass the check of ISO/IEC 7812."""
    for last in "0123456789":
        sum_ = 0
        for place, sign in enumerate(reversed(body + last)):
            number = int(sign) << (place & 1)
            sum_ += number // 10 + number % 10
        if not sum_ % 10:
            return body + last
    raise AssertionError


def card_digits(dice: random.Random) -> str:
    prefix, length = dice.choice(
        (
            ("4", 16), ("4", 16), ("4", 16), ("51", 16), ("55", 16), ("2223", 16), ("2719", 16),
            ("34", 15), ("37", 15), ("6011", 16), ("65", 16), ("36", 14), ("3530", 16),
            ("62", 16), ("62", 19), ("4", 19), ("5018", 16), ("6759", 18), ("2202", 16),
        )
    )  # fmt: skip
    return with_check_digit(prefix + digits(dice, length - len(prefix) - 1))


def card(dice: random.Random) -> str:
    number = card_digits(dice)
    groups = {15: (4, 6, 5), 14: (4, 6, 4)}.get(len(number), (4, 4, 4, 4, 3))
    form = dice.random()
    if form < 0.4:
        return number
    pieces, at = [], 0
    for size in groups:
        if number[at : at + size]:
            pieces.append(number[at : at + size])
        at += size
    if form < 0.85:
        return dice.choice((" ", " ", "-", ".")).join(pieces)
    if form < 0.9:
        return "\u00a0".join(pieces)
    if form < 0.94:  # full-width
        return "".join(chr(ord(one) + 0xFEE0) for one in number)
    if form < 0.97:  # something that nobody sees in between
        return "\u200b".join(pieces)
    return " ".join(number)


def email(dice: random.Random) -> str:
    if dice.random() < 0.04:
        return f"{word(dice)} at {word(dice)} dot com"  # not found
    local = dice.choice(
        (word(dice), f"{word(dice)}.{word(dice)}", f"{word(dice)}+{word(dice, 2, 4)}")
    )
    local += dice.choice(("", "", str(dice.randint(1, 99))))
    domain = dice.choice(("example.org", "example.com", "mail.example.co.uk", f"{word(dice)}.de"))
    domain = dice.choice((domain, domain, domain, "m\u00fcller-" + word(dice) + ".ch"))
    text = f"{local}@{domain}"
    return dice.choice((text, text, text, text.upper(), text.title()))


def phone(dice: random.Random) -> str:
    """By the published plans of some countries."""

    def us(dice: random.Random) -> tuple[str, str, str]:
        area = dice.choice(("212", "415", "312", "617", "713", "206", "305", "404", "702", "503"))
        return (
            area,
            dice.choice("23456789") + dice.choice(("34", "45", "67", "82")),
            digits(dice, 4),
        )

    form = dice.randrange(12)
    area, exchange, line = us(dice)
    match form:
        case 0 | 1:
            return f"({area}) {exchange}-{line}"
        case 2 | 3:
            return dice.choice("-. ").join((area, exchange, line))
        case 4:
            return f"+1 {area} {exchange} {line}"
        case 5:
            return f"+1{area}{exchange}{line}"
        case 6:
            return f"+44 7{dice.choice('4578')}{digits(dice, 2)} {digits(dice, 6)}"
        case 7:
            return f"+49 {dice.choice(('151', '160', '170', '171'))} {digits(dice, 7)}"
        case 8:
            return f"+33 6 {digits(dice, 2)} {digits(dice, 2)} {digits(dice, 2)} {digits(dice, 2)}"
        case 9:
            return f"020 7{digits(dice, 3)} {digits(dice, 4)}"
        case 10:
            return f"0{dice.choice(('151', '170', '171'))} {digits(dice, 7)}"
    return f"{area}{exchange}{line}"


def iban(dice: random.Random) -> str:
    country, body = dice.choice(
        (
            ("DE", digits(dice, 18)), ("FR", digits(dice, 23)), ("ES", digits(dice, 20)),
            ("NL", "".join(dice.choices(string.ascii_uppercase, k=4)) + digits(dice, 10)),
            ("GB", "".join(dice.choices(string.ascii_uppercase, k=4)) + digits(dice, 14)),
            ("CH", digits(dice, 17)), ("AT", digits(dice, 16)), ("PL", digits(dice, 24)),
        )
    )  # fmt: skip
    remainder = 0
    for sign in body + country + "00":
        value = ord(sign) - 55 if sign.isalpha() else int(sign)
        remainder = (remainder * (100 if value > 9 else 10) + value) % 97
    number = f"{country}{98 - remainder:02d}{body}"
    if dice.random() < 0.4:
        return number
    if dice.random() < 0.05:
        return number[:4] + "  " + number[4:]  # not found
    return " ".join(number[at : at + 4] for at in range(0, len(number), 4))


def ssn(dice: random.Random) -> str:
    area = dice.choice((dice.randint(1, 665), dice.randint(667, 899)))
    return f"{area:03d}-{dice.randint(1, 99):02d}-{dice.randint(1, 9999):04d}"


def ssn_typed(dice: random.Random) -> str:
    """As people type it after the word, right or wrong."""
    number = digits(dice, 9)
    return dice.choice((number, f"{number[:3]} {number[3:5]} {number[5:]}", ssn(dice)))


def ip(dice: random.Random) -> str:
    if dice.random() < 0.3:
        groups = [f"{dice.randint(1, 0xFFFF):x}" for _ in range(8)]
        groups[0] = "2001"
        return dice.choice((":".join(groups), "::".join((":".join(groups[:3]), groups[7]))))
    return ".".join(str(dice.randint(128, 223)) for _ in range(4))


MONTHS = "January February March April May June July August September October November December"


def date(dice: random.Random) -> str:
    year, month, day = dice.randint(1935, 2008), dice.randint(1, 12), dice.randint(1, 28)
    name = MONTHS.split()[month - 1]
    return dice.choice(
        (
            f"{year}-{month:02d}-{day:02d}", f"{day:02d}/{month:02d}/{year}",
            f"{name} {day}, {year}",
            f"{day} {name} {year}", f"{day}.{month}.{year}", f"{month}/{day}/{year % 100:02d}",
            f"{day} {name[:3]} {year}", f"{name[:3]} {day} {year}",
        )
    )  # fmt: skip


def passport(dice: random.Random) -> str:
    letters = "".join(dice.choices(string.ascii_uppercase, k=2))
    return dice.choice(
        (digits(dice, 9), letters[0] + digits(dice, 8), letters + digits(dice, 7),
         f"C01X{digits(dice, 4)}{letters[0]}")
    )  # fmt: skip


def licence(dice: random.Random) -> str:
    letters = "".join(dice.choices(string.ascii_uppercase, k=5))
    return dice.choice(
        (
            letters[0] + digits(dice, 7), digits(dice, 8), letters[0] + digits(dice, 12),
            f"{letters[0]}{digits(dice, 3)}-{digits(dice, 4)}-{digits(dice, 4)}",
            f"{letters}{digits(dice, 6)}SM9IJ",
        )
    )  # fmt: skip


def cvv(dice: random.Random) -> str:
    return digits(dice, dice.choice((3, 3, 3, 4)))


def track(dice: random.Random) -> str:
    number, tail = card_digits(dice), f"{dice.randint(25, 34)}{dice.randint(1, 12):02d}101"
    if dice.random() < 0.5:
        name = f"{word(dice).upper()}/{word(dice).upper()}"
        return f"%B{number}^{name}^{tail}{digits(dice, 13)}?"
    return f";{number}={tail}{digits(dice, 12)}?"


def secret(dice: random.Random) -> str:
    def signs(alphabet: str, count: int) -> str:
        return "".join(dice.choices(alphabet, k=count))

    upper, alnum = string.ascii_uppercase + "234567", string.ascii_letters + string.digits
    web = alnum + "-_"
    block = "-----BEGIN PRIVATE KEY-----\n{}\n{}==\n-----END PRIVATE KEY-----"
    return dice.choice(
        (
            "AKIA" + signs(upper, 16), "ghp_" + signs(alnum, 36),
            "github_pat_" + signs(alnum + "_", 81) + "x",
            f"xoxb-{digits(dice, 12)}-{digits(dice, 12)}-{signs(alnum, 24)}",
            "sk_live_" + signs(alnum, 24), "sk-proj-" + signs(alnum, 48),
            "AIza" + signs(web, 34) + "x", "glpat-" + signs(alnum, 20), "npm_" + signs(alnum, 36),
            f"eyJ{signs(alnum, 30)}.eyJ{signs(web, 90)}.{signs(web, 42)}x",
            block.format(signs(alnum + "+/", 64), signs(alnum + "+/", 50)),
            signs("0123456789abcdef", 40), "correct-horse-" + word(dice),  # not found
        )
    )  # fmt: skip


def login(dice: random.Random) -> str:
    return f"{word(dice)}:{word(dice)}{digits(dice, 2)}{dice.choice('!%$x')}"


KINDS: dict[str, tuple[tuple[str, ...], Make]] = {
    "Email": (
        (
            "You can write to {X} any time.", "My address is {X}, please reply there.",
            '{{"user": "{X}", "plan": "pro"}}', "From: Jo Doe <{X}>", "(see {X})",
            "contacts: {X};{Email};{Email}", "mailto:{X}?subject=hello", "{X}",
        ), email,
    ),
    "Phone": (
        (
            "Please call me at {X}.", "My number is {X}, after six.", "Tel. {X}", "phone: {X}",
            "WhatsApp me on {X}!", '{{"mobile": "{X}"}}', "You reach her under {X} all day.",
            "Contact {X} or {Phone}", "{X}",
        ), phone,
    ),
    "Card": (
        (
            "My card is {X}.", "Charge {X}, exp 09/29.", "I paid with {X} yesterday",
            '{{"pan": "{X}", "amount": 12}}', "Visa {X}", "{X}", "card number:{X}",
            "Not {X} but {Card}, please.",
        ), card,
    ),
    "CardVerification": (
        (
            "My card is {Card} and the CVV is {X}.", "cvv: {X}", "CVC {X}", "cvc2={X}&pay=1",
            '{{"cvv": "{X}"}}', "{Card} 11/28 {X}", "The security code of my card is {X}",
            "{Card}, exp 04/2027, {X}", "card verification code {X}",
            "the three digits on the back of my card: {X}", "{X} is the CVV",
            "CVV for {Card} is {X}", "Card {Card}, {X}, thanks", "on the back it says {X}",
        ), cvv,
    ),
    "CardTrack": (("swipe: {X}", "Raw read {X} from the reader", "{X}", "data={X};"), track),
    "IBAN": (
        (
            "Transfer it to {X}.", "IBAN: {X}", '{{"account": "{X}"}}', "My account {X}, Jo Doe",
            "from {X} to {IBAN}", "{X}",
        ), iban,
    ),
    "SocialSecurity": (
        (
            "My SSN is {Typed}.", "SSN: {Typed}", "soc {Typed}", "It is {X}.",
            "social security number {Typed}",
            '{{"ssn": "{Typed}"}}', "{X}",
        ), ssn,
    ),
    "IPAddress": (
        ("Login from {X}.", "ip={X} port=443", "The client {X} was blocked", "[{X}] GET /", "{X}"),
        ip,
    ),
    "BirthDate": (
        (
            "I was born on {X}.", "DOB: {X}", "date of birth {X}", "Her birthday is {X}.",
            '{{"birthdate": "{X}"}}', "born {X} in Rome", "Geburtsdatum: {X}",
            "I turned forty on {X}.",
        ), date,
    ),
    "Passport": (
        (
            "My passport number is {X}.", "Passport: {X}", "passport no. {X}, issued in Bern",
            '{{"passport": "{X}"}}', "Reisepass {X}", "my travel document is {X}",
        ), passport,
    ),
    "DriverLicence": (
        (
            "My driver's license is {X}.", "driving licence {X}", "DL no {X}",
            "Driver license number: {X}", "drivers licence no. {X}", "My permit to drive: {X}",
        ), licence,
    ),
    "Secret": (
        (
            "Use {X} for now.", "export TOKEN={X}", '{{"key": "{X}"}}', "Authorization: {X}",
            "Why does {X} fail?", "{X}",
        ), secret,
    ),
    "URLCredentials": (
        (
            "user and password of db.example.com: {X}", "postgres://{X}@db.example.com:5432/app",
            "git clone https://{X}@git.example.org/a.git",
            "REDIS_URL=redis://{X}@10-cache:6379/0", "Set amqp://{X}@queue/ in the file.",
        ), login,
    ),
}  # fmt: skip

MIXED = (
    "I am Jo, born on {BirthDate}, mail {Email}, phone {Phone}.",
    "Refund card {Card} (cvv {CardVerification}) and send the receipt to {Email}.",
    "Customer {Email}\nIBAN {IBAN}\nTel {Phone}\nIP {IPAddress}",
    '{{"email": "{Email}", "phone": "{Phone}", "card": "{Card}", "ip": "{IPAddress}"}}',
)

# --- what looks like a value and is none -------------------------------------------------------


def _harmless(dice: random.Random) -> str:
    return dice.choice(HARMLESS)(dice)


def _luhn_order(dice: random.Random) -> str:
    """Sixteen digits that pass a card's check, of a range that no issuer has."""
    return with_check_digit(dice.choice(("10", "17", "90", "70")) + digits(dice, 13))


HARMLESS: tuple[Make, ...] = (
    lambda d: "The parcel arrives on Friday, and nobody has to sign for it.",
    lambda d: "Could you summarise what we decided about the budget of the third quarter?",
    lambda d: f"Order {digits(d, d.randint(6, 12))} is on its way.",
    lambda d: f"Order no. {_luhn_order(d)} was cancelled.",
    lambda d: f"Tracking number 1Z{digits(d, 6)}{digits(d, 10)}",
    lambda d: f"trace {uuid.UUID(int=d.getrandbits(128), version=4)} done",
    lambda d: f"commit {d.getrandbits(160):040x}",
    lambda d: f"sha256:{d.getrandbits(256):064x}",
    lambda d: f"at 2026-{d.randint(1, 12):02d}-{d.randint(1, 28):02d}T10:{digits(d, 2)}:00.123Z",
    lambda d: f"ts={d.randint(1_600_000_000, 1_900_000_000)}",
    lambda d: f"ts_ms={d.randint(1_600_000_000_000, 1_900_000_000_000)}",
    lambda d: f"Invoice INV-{digits(d, 4)}-{digits(d, 6)} of 12,{digits(d, 3)}.50 EUR",
    lambda d: f"x = [{', '.join(str(d.randint(0, 9999)) for _ in range(8))}]",
    lambda d: f"for i in range({digits(d, 3)}): total += data[i] * 0.{digits(d, 12)}",
    lambda d: f'{{"id": {digits(d, 9)}, "count": {digits(d, 3)}, "ok": true}}',
    lambda d: f"Version 2.{d.randint(0, 40)}.{d.randint(0, 9)}, build {digits(d, 5)}",
    lambda d: f"release 10.0.{d.randint(10000, 20000)}.1 is out",
    lambda d: "@app.route('/') and import numpy as np; a @ b",
    lambda d: "pip install redis@latest react@18.2.0",
    lambda d: f"std::vector<int> v({d.randint(1, 99)}); fe::set(v);",
    lambda d: f"It took 12:{digits(d, 2)}:{digits(d, 2)} hours, or {digits(d, 2)}.5 %.",
    lambda d: f"ISBN 978-3-16-{digits(d, 6)}-0",
    lambda d: f"The meeting of {d.randint(1, 28)} March 2026 moves to room {digits(d, 3)}.",
    lambda d: f"Ticket #{digits(d, 7)}: error code {digits(d, 4)} at line {digits(d, 3)}",
    lambda d: f"Your one-time code is {digits(d, 6)}.",
    lambda d: f"mac {':'.join(f'{d.randint(0, 255):02x}' for _ in range(6))}",
    lambda d: f"git clone git@github.com:{word(d)}/{word(d)}.git",
    lambda d: f"https://example.com/{word(d)}?page={digits(d, 2)}#part-{digits(d, 3)}",
    lambda d: f"SELECT name WHERE id = {digits(d, 8)} AND year = 2026;",
    lambda d: f"coordinates 52.{digits(d, 6)}, 13.{digits(d, 6)}",
    lambda d: f"Part {digits(d, 3)}-{digits(d, 4)}-{digits(d, 2)}, {digits(d, 4)} more in May.",
    lambda d: f"account {digits(d, 10)} has {digits(d, 4)} points",
    lambda d: f"base64 {''.join(d.choices(string.ascii_letters + string.digits + '+/', k=44))}=",
    lambda d: f"The card payment of {digits(d, 3)} dollars failed with reason {digits(d, 2)}.",
    lambda d: f"IMEI 35{digits(d, 13)}, serial {word(d).upper()}{digits(d, 8)}",
    lambda d: f"employee {digits(d, 5)} of team 12, badge {digits(d, 3)}-{digits(d, 3)}",
    lambda d: f"127.0.0.1:{digits(d, 4)} and 0.0.0.0 listen",
    lambda d: "The passport office opens in 2026, and the licence costs 5000.",
    lambda d: "Born to run, I call it a day; text me 3 or 4 ideas.",
)
