"""The page of a study: from study.json and trials.json to one file that opens from disk with no network."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instrunet.data.parts import write_aside
from instrunet.report import pages, parallel, pictures
from instrunet.report.words import short

PAGE = "index.html"
MAX_ROWS = 200


def require() -> None:
    """Fail before any work is done if the page cannot be drawn."""
    pictures.require()


def write(study: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    text = render(study, trials)
    return write_aside(folder / PAGE, lambda aside: aside.write_text(text, encoding="utf-8"))


def render(study: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> str:
    scored = [row for row in trials if row["score"] is not None]
    changed = [row["changed"] for row in scored]
    names = list(study["importance"]) or sorted({name for one in changed for name in one})
    sign = -1 if study["metric"] == "val_loss" else 1
    return pages.render(
        "study.html",
        s=study,
        best=study["best"],
        figure=study["figure"].replace("_", " "),
        metric=study["metric"].removeprefix("val_").replace("_", " ").capitalize(),
        leaky=study["audit"].startswith("leaky"),
        lines=parallel.coordinates(changed, [row["score"] for row in scored], names, study["metric"], sign),
        shown=scored[:MAX_ROWS],
        n_more=max(0, len(scored) - MAX_ROWS),
        failed=[row for row in trials if row["score"] is None],
        command=command(study["best"]["fields"]),
    )


def command(fields: Mapping[str, Any]) -> str:
    """What trains the best configuration again, behind `jobs/train.py CONFIG`: a group before its fields."""
    order = sorted(fields, key=lambda name: (name.count("."), not name.endswith(".name"), name))
    words = [f"{name}={_written(fields[name])}" for name in order]
    return shlex.join(["python", "jobs/train.py", "CONFIG", *words])


def told(fields: Mapping[str, Any]) -> str:
    """For the console."""
    return ", ".join(f"{name} {short(value)}" for name, value in fields.items()) or "nothing changed"


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
