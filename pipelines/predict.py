"""Prediction on single files: no Ray, so that one file costs one file."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from instrunet.audio.io import DecodeError
from instrunet.bundle import Bundle, Prediction
from instrunet.data import places
from instrunet.data.parts import write_aside
from instrunet.data.places import as_text, check_name
from instrunet.errors import DataError, JobError
from instrunet.features import match
from instrunet.report import pictures
from pipelines import registry
from pipelines.console import results

SHOWN = 3
MATCHED = ("error", "frames", "bands", "numbers")  # the error is the deviation over that of the features
UNDECODED = ("corrupt", "unreadable")


def run(args: argparse.Namespace) -> Path | None:
    """A table, or with `--json` one line a file. One that cannot be decoded is a row too, and makes exit code 1.

    With `--match FEATURES.npy AUDIO` the settings that best explain these features, instead.
    """
    if args.match:
        features, audio = args.match
        _match(features, audio, args.json)
        return None
    if args.picture:
        pictures.require()
    bundle = registry.load(args.bundle, args.runtime)
    told = [(name, said) for name, said in _told(bundle, args)]
    if not args.json:
        results.print(_table(bundle, told))
    bad = [name for name, said in told if said.status in UNDECODED]
    if bad:
        raise JobError(f"{len(bad)} of {len(told)} files could not be decoded, the first is {bad[0]}")
    return args.picture if args.picture and not args.json else None


def _told(bundle: Bundle, args: argparse.Namespace) -> Iterator[tuple[str, Prediction]]:
    """Of each file its name and what is said of it; lines and pictures are written as they come."""
    drawn: set[str] = set()
    leaky = bundle.spec.trained.leaky
    for path in _files(args.files):
        said, picture = _said(path, bundle, args.picture, drawn)
        if args.json and said.status in UNDECODED:
            _line({"file": as_text(path), "status": said.status, "error": said.error})
        elif args.json:
            more = {"leaky": f"LEAKY: {leaky}"} if leaky else {}
            _line({"file": as_text(path), **said.to_dict(), **more, **({"picture": str(picture)} if picture else {})})
        yield as_text(path), said


def _said(path: Path, bundle: Bundle, folder: Path | None, drawn: set[str]) -> tuple[Prediction, Path | None]:
    try:
        check_name(path)
        sound = bundle.read(path)
    except DecodeError as error:
        return Prediction(error.status, [], {}, [], [], 0.0, [], str(error)), None
    said = bundle.decided(sound)
    if not folder:
        return said, None
    from instrunet.report import heard

    content = heard.picture(bundle, sound, said, path.name)
    name = next(name for name in _names(path.stem[:200]) if name not in drawn)
    drawn.add(name)
    return said, write_aside(folder / f"{name}.png", lambda aside: aside.write_bytes(content))


def _names(stem: str) -> Iterator[str]:
    """Files of one name in two folders: `a`, `a-2`, `a-3`."""
    yield stem
    k = 2
    while True:
        yield f"{stem}-{k}"
        k += 1


def _files(given: Iterable[Path | str]) -> Iterator[Path]:
    """`-` is a list on stdin, a name a line, read as it comes."""
    for name in given:
        if str(name) == "-":
            lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
            yield from (places.asked(os.fsdecode(line)) for line in lines if line)
        else:
            yield places.asked(name) if isinstance(name, str) else name


def _table(bundle: Bundle, told: list[tuple[str, Prediction]]) -> Table:
    leaky = bundle.spec.trained.leaky
    title = Text(f"LEAKY: trained on leaky data: {leaky}") if leaky else None
    table = Table(Column("file", overflow="fold"), "labels", "best scores", "status", title=title)
    for name, said in told:
        best = "  ".join(f"{label} {score:.2f}" for label, score in said.ranked[:SHOWN])
        table.add_row(*map(Text, (name, said.answer if said.scores else "", best, said.status)))
    return table


def _match(features: Path, audio: Path, as_json: bool) -> None:
    try:
        check_name(audio)
        found = match.match(features, audio)
    except DecodeError as error:
        raise DataError(f"{as_text(audio)}: {error}") from None
    if as_json:
        for row in found:
            _line(asdict(row))
        return
    table = Table(*MATCHED)
    for m in found:
        bands = f"{m.n_mels} mels {m.fmin_hz:g}-{m.fmax_hz:g} Hz, {m.mel_scale}, norm {m.norm}, power {m.power}"
        frames = f"{m.sample_rate} Hz, n_fft {m.n_fft}, hop {m.hop_length}"
        table.add_row(f"{m.error:.2g}", frames, bands, f"{m.log}; level {m.level}; scaled {m.scaled}")
    results.print(table)


def _line(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()  # who reads them through a pipe need not wait for the last
