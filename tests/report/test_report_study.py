"""The page of a study: all of it is there, in one file, and a browser shows it on paper, in the dark and on a phone."""

import os
from pathlib import Path
from typing import Any

import pytest
from browser import Page, browse, needs_browser

from instrunet.report import parallel, study

IMPORTANCE = {"train.learning_rate": 0.7, "model": 0.2, "model.dropout": 0.1}


def row(k: int, **more: Any) -> dict[str, Any]:
    model = ("task8", "attentive", "a <b>long</b> name of a network that goes on")[k % 3]
    changed: dict[str, Any] = {"train.learning_rate": 10 ** -(1 + k % 4), "model": model}
    changed |= {"model.dropout": 0.1 * (k % 5)} if k % 3 else {}
    score = 0.4 + 0.05 * (k % 7)
    behind = [0.7 - score, 0.6 - score, 0.8 - score]
    made = {"trial": f"abc_{k:05d}", "status": "done", "reason": "", "epochs": 8.0, "seconds": 12.3, "score": score}
    made |= {"changed": changed, "fields": changed, "n_parameters": 123_456, "behind": behind}
    return made | {"within_noise": behind[1] <= 0} | more


def table() -> list[dict[str, Any]]:
    none = {"score": None, "behind": None, "within_noise": None, "n_parameters": None, "status": "failed"}
    return [
        *sorted((row(k) for k in range(12)), key=lambda one: -one["score"]),
        row(3, **none, reason="ValueError: <x>"),
    ]


def made(**more: Any) -> dict[str, Any]:
    rows = table()
    figure = {"value": 0.7, "interval": [0.6, 0.8], "n_clips": 40, "n_groups": 10}
    best = {"trial": rows[0]["trial"], "fields": rows[0]["fields"], "told": rows[0]["changed"], "score": 0.7}
    best |= {"validation": figure, "test": figure | {"value": 0.65}}
    best |= {"optimism": {"value": 0.05, "interval": [-0.1, 0.2]}}
    study_ = {"name": "tune-smoke", "metric": "val_balanced_accuracy", "figure": "balanced_accuracy", "audit": "clean"}
    study_ |= {"sampler": "random", "scheduler": "asha", "n_trials": 13, "n_failed": 1, "n_stopped": 4}
    study_ |= {"n_within_noise": 2, "epochs_most": 104, "epochs_spent": 61.0, "training_s": 300.0, "best": best}
    seeds = {"trial": rows[0]["trial"], "told": rows[0]["changed"], "first": 0.7, "scores": [0.6, 0.65]}
    study_ |= {"confirmed": [seeds | {"mean": 0.625, "deviation": 0.035}], "importance": IMPORTANCE}
    return study_ | more


def test_everything_is_said(tmp_path: Path) -> None:
    text = study.write(made(), table(), tmp_path).read_text()
    for said in ("flattered it by +0.050", "2 other trials", "ValueError: &lt;x&gt;", "0.625", "of at most 104"):
        assert said in text, said
    assert "<b>long" not in text
    assert "http://" not in text and "https://" not in text


def test_leaky_or_untested_is_said_first() -> None:
    text = study.render(made(audit="leaky: one"), table())
    assert "LEAKY: do not quote" in text and "leaky: one" in text
    best = made()["best"] | {"test": None, "optimism": None}
    assert "has no test split" in study.render(made(best=best), table())


def test_one_trial_is_a_page_too() -> None:
    alone = table()[:1]
    assert "All trials" in study.render(made(importance={}, confirmed=[], n_trials=1, n_within_noise=0), alone)


def test_the_command_sets_groups_before_their_fields() -> None:
    told = study.command({"model.dropout": 0.2, "model.name": "task8", "train.mixup": {"alpha": 0.3}})
    assert told == "python jobs/train.py CONFIG model.name=task8 model.dropout=0.2 'train.mixup={\"alpha\": 0.3}'"


def test_axes_hold_numbers_words_and_nothing() -> None:
    told = [{"a": 1e-4, "b": "x"}, {"a": 1e-2, "b": "y", "c": True}, {"a": 1e-3, "b": "x"}]
    axis = parallel._Axis("a", [one["a"] for one in told])
    assert axis.log and axis.at == pytest.approx([0, 1, 0.5])
    assert parallel._Axis("c", [one.get("c") for one in told]).at[0] == 0.0
    assert parallel.coordinates(told[:1], [0.5], ["a", "b"], "val_accuracy") is None


@needs_browser
def test_in_a_browser(tmp_path: Path) -> None:
    page = study.write(made(), table(), tmp_path)

    async def visit(tab: Page) -> list[int]:
        widths = []
        for width, height, dark in ((1280, 900, False), (1280, 900, True), (390, 844, False)):
            await tab.size(width, height)
            await tab.dark(dark)
            widths.append(await tab.js("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
            if shown := os.environ.get("SCREENSHOTS"):
                await tab.picture(Path(shown) / f"study-{width}-{'dark' if dark else 'light'}.png")
        await tab.js("document.querySelectorAll('[data-sort] button')[1].click()")
        assert await tab.js("document.querySelector('[data-sort] tbody tr td:nth-child(2)').textContent") == "0.400"
        assert tab.said == []
        return widths

    assert browse(page.as_uri(), visit) == [0, 0, 0]  # nothing is wider than the page
