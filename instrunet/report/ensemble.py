"""The page of an ensemble, from ensemble.json to one file that opens from disk with no network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instrunet.data.parts import write_aside
from instrunet.report import pages, pareto, pictures

PAGE = "index.html"
COSTS = {"parameters": "n_parameters", "ms a window": "ms_per_window"}


def require() -> None:
    pictures.require()


def write(record: Mapping[str, Any], folder: Path) -> Path:
    text = render(record)
    return write_aside(folder / PAGE, lambda aside: aside.write_text(text, encoding="utf-8"))


def render(record: Mapping[str, Any]) -> str:
    ways, figure = record["ways"], record["figure"].replace("_", " ")
    names = [row["name"] for row in ways]
    scores = [row["test"][0] if row["test"] else row["validation"] for row in ways]
    drawn = {
        f"{figure.capitalize()} over {cost}": pareto.picture(
            names, [row[key] for row in ways], scores, (cost, figure), record["chosen"]
        )
        for cost, key in COSTS.items()
    }
    return pages.render(
        "ensemble.html",
        r=record,
        chosen=next(row for row in ways if row["name"] == record["chosen"]),
        figure=figure,
        leaky=record["audit"].startswith("leaky"),
        pictures=drawn,
    )
