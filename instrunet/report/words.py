"""Numbers and values as people say them."""

import json
from typing import Any

LONGEST = 60


def percent(value: float) -> str:
    return f"{100 * value:.1f}\u202f%"


def count(value: int) -> str:
    return f"{value:,}"


def magnitude(value: int) -> str:
    """A number of parameters as people say it: 4.2 million."""
    for size, word in ((10**9, "billion"), (10**6, "million"), (10**3, "thousand")):
        if value >= size:
            return f"{value / size:.3g}\u00a0{word}"
    return str(value)


def clock(seconds: float) -> str:
    """Seconds as 1:02.5. Rounded first: 59.97 s is 1:00.0, not 0:60.0."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"


def short(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
