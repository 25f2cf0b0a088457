"""Messages of 220 bytes, as a support conversation has them; no two alike."""

import random

_SENTENCES = (
    "The parcel left the depot in {city} at {time} and should arrive before noon.",
    "I ordered {count} of them on the {day}th, and only one came with the invoice {number}.",
    "Please send it to the office in {city} instead; nobody is at home until the {day}th.",
    "Your colleague promised a refund of {count} euros, which my bank has not seen yet.",
    "The courier says that the address was incomplete, so it went back to {city}.",
    "We looked at invoice {number} again: the discount of {count} percent was missing.",
    "Could you call me after {time}, or write when you know more about it?",
    "It worked for {count} days, then the screen stayed black and error {number} came up.",
    "A new one is on its way from {city}; the old one can be sent back free of charge.",
    "According to the contract, the notice period ends on the {day}th at {time}.",
)
_CITIES = ("Leipzig", "Hamburg", "Rotterdam", "Lyon", "Turin", "Gdansk", "Porto", "Malmö")


def texts(count: int, *, seed: int = 0, size: int = 220) -> list[str]:
    """The same for the same seed."""
    draw = random.Random(seed)
    return [_text(draw, size) for _ in range(count)]


def _text(draw: random.Random, size: int) -> str:
    text = ""
    while len(text) < size:
        text += " " * bool(text) + draw.choice(_SENTENCES).format(
            city=draw.choice(_CITIES),
            time=f"{draw.randrange(24)}:{draw.randrange(60):02}",
            count=draw.randrange(2, 90),
            day=draw.randrange(4, 31),
            number=draw.randrange(10_000, 99_999),
        )
    return text[:size]
