"""The page of an ensemble: what none beats is joined, and a browser shows it."""

import os
from pathlib import Path
from typing import Any

import pytest
from browser import Page, browse, needs_browser

from instrunet.report import ensemble
from instrunet.report.pareto import front


def record(**more: Any) -> dict[str, Any]:
    names = ("task8 a", "attentive <b>", "iteration11 c", "soft", "greedy", "stacking")
    ways = [
        {"name": name, "bundle": name, "validation": 0.5 + 0.05 * k, "n_parameters": 10**5 * (1 + k), "gain": None}
        | {"ms_per_window": 0.2 * (1 + k % 4), "test": [0.5 + 0.04 * k, 0.4 + 0.04 * k, 0.6 + 0.04 * k]}
        for k, name in enumerate(names)
    ]
    ways[4]["gain"] = [0.05, -0.01, 0.1]
    made = {"figure": "macro_f1", "chosen": "greedy", "audit": "clean", "n_members": 3, "ways": ways}
    return made | {"validation": {"n_clips": 60, "n_groups": 12}} | more


def test_what_none_beats_in_both() -> None:
    assert front([1, 2, 3, 2], [0.5, 0.4, 0.9, 0.6]) == [0, 3, 2]


def test_what_it_says() -> None:
    text = ensemble.render(record())
    assert "Greedy over 3 bundles" in text and "within noise" in text and "attentive &lt;b&gt;" in text
    assert "LEAKY: do not quote" in ensemble.render(record(audit="leaky: one"))
    untested = [row | {"test": None, "gain": None} for row in record()["ways"]]
    assert "There is no test split" in ensemble.render(record(ways=untested))


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser(dark: bool, tmp_path: Path) -> None:
    page = ensemble.write(record(), tmp_path)

    async def visit(tab: Page) -> None:
        await tab.dark(dark)
        for width in (1280, 390):
            await tab.size(width, 900)
            assert not await tab.js("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if shown := os.environ.get("SCREENSHOTS"):
                await tab.picture(Path(shown) / f"ensemble-{width}-{'dark' if dark else 'light'}.png")
        assert tab.said == []

    browse(page.as_uri(), visit)
