"""Several trainings at a time: each is the whole job of `pipelines/train.py`, led from a process that Ray places.

What they say comes to this console a line at a time, with the training's name before it.
"""

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray

from instrunet import errors
from instrunet.data import parts
from instrunet.errors import InstrunetError
from instrunet.experiment import Experiment
from pipelines import cluster, console, train
from pipelines.console import bar, note
from pipelines.events import mailbox

LOOK_S = 0.5


def run(specs: Sequence[Experiment], folders: Sequence[Path], verbose: bool) -> list[Path]:
    """The bundle of each, on its features of `folders`. One that fails ends none of the others; then it is raised."""
    one = specs[0].cluster
    cluster.check_fits(one, one.workers)
    places = [train.place(spec, folder, verbose) for spec, folder in zip(specs, folders, strict=True)]
    missing = [n for n, place in enumerate(places) if not parts.is_done(place)]
    at_once = 1
    if len(missing) > 1:
        cluster.connect(one, verbose=verbose)
        at_once = min(len(missing), cluster.trainings_at_once(one))
    if at_once > 1:
        _lead([specs[n] for n in missing], [folders[n] for n in missing], at_once, verbose)
        places = [place / train.BUNDLE for place in places]
    else:
        places = [train.run(spec, verbose, folder) for spec, folder in zip(specs, folders, strict=True)]
    return places


def _lead(specs: list[Experiment], folders: list[Path], at_once: int, verbose: bool) -> None:
    note(f"{len(specs)} trainings, {at_once} at a time")
    mail = mailbox()
    shared = -(-at_once // len(ray.nodes()))  # of a node's cores
    waiting = list(zip(specs, folders, strict=True))
    leading: dict[Any, str] = {}
    failed: list[InstrunetError] = []
    with bar("trainings", len(specs)) as progress:
        while waiting or leading:
            while waiting and len(leading) < at_once:
                spec, folder = waiting.pop(0)
                asked = lead.remote(spec.model_dump(mode="json"), str(folder), mail, shared, verbose)
                leading[asked] = spec.name
            done, _ = ray.wait(list(leading), timeout=LOOK_S)
            for event in ray.get(mail.take.remote()):
                progress.line(event["line"])
            for ended in done:
                name = leading.pop(ended)
                if failure := _failure(ended):
                    failed.append(getattr(errors, failure["kind"])(f"{name}: {failure['error']}"))
                progress.advance()
    if failed:
        raise failed[0]


def _failure(ended: Any) -> dict[str, str] | None:
    try:
        failure: dict[str, str] | None = ray.get(ended)
    except ray.exceptions.RayError as error:  # its process or its node is gone
        return {"kind": "JobError", "error": str(error).strip().splitlines()[0]}
    return failure


@ray.remote(num_cpus=0, max_retries=0)
def lead(spec: dict[str, Any], folder: str, mailbox: Any, shared: int, verbose: bool) -> dict[str, str] | None:
    """One training, in a process of its own; a mistake comes back as plain words."""
    experiment = Experiment.model_validate(spec)
    cluster.hush(verbose=verbose)
    console.notes.file = console.results.file = Lines(partial(_put, mailbox, experiment.name))  # type: ignore[assignment]
    try:
        train.run(experiment, verbose, Path(folder), shared)
    except InstrunetError as error:
        return {"kind": type(error).__name__, "error": str(error)}
    return None


def _put(mailbox: Any, name: str, line: str) -> None:
    mailbox.put.remote({"line": f"{name}: {line}"})


class Lines(io.TextIOBase):
    """A file whose lines go to `say`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.begun = say, ""

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split("\n")
        for line in lines:
            if line.strip():
                self.say(line)
        return len(text)
