"""Prediction on single files: no Ray, so that one file costs one file."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

import instrunet
from instrunet.audio.io import DecodeError
from instrunet.bundle import Bundle, Prediction
from instrunet.data.places import as_text, check_name
from instrunet.decisions import NO_ANSWER
from instrunet.errors import DataError, JobError
from instrunet.features import match
from pipelines.console import results

SHOWN = 3
MATCHED = ("error", "frames", "bands", "numbers")  # the error is the deviation over that of the features


def run(args: argparse.Namespace) -> None:
    """A table, or with `--json` one line a file. One that cannot be decoded is a row too, and makes exit code 1.

    With `--match FEATURES.npy AUDIO` the settings that best explain these features, instead.
    """
    if args.match:
        features, audio = args.match
        _match(features, audio, args.json)
        return
    bundle = instrunet.load(args.bundle)
    told = [_tell(path, bundle, args.json) for path in args.files]
    if not args.json:
        leaky = bundle.spec.trained.leaky
        title = Text(f"LEAKY: trained on leaky data: {leaky}") if leaky else None
        table = Table(Column("file", overflow="fold"), "labels", "best scores", "status", title=title)
        for row in told:
            table.add_row(*map(Text, row))
        results.print(table)
    bad = [path for path, row in zip(args.files, told, strict=True) if row[3] in ("corrupt", "unreadable")]
    if bad:
        raise JobError(f"{len(bad)} of {len(told)} files could not be decoded, the first is {as_text(bad[0])}")


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


def _tell(path: Path, bundle: Bundle, as_json: bool) -> tuple[str, str, str, str]:
    name = as_text(path)
    try:
        check_name(path)
        found = bundle(path)
    except DecodeError as error:
        if as_json:
            _line({"file": name, "status": error.status, "error": str(error)})
        return name, "", "", error.status
    if as_json:
        leaky = bundle.spec.trained.leaky
        _line({"file": name, **found.to_dict(), **({"leaky": f"LEAKY: {leaky}"} if leaky else {})})
    said = "no answer" if NO_ANSWER in found.flags else ", ".join(found.labels)
    return name, said, _best(found), found.status


def _best(found: Prediction) -> str:
    best = sorted(found.scores.items(), key=lambda pair: -pair[1])[:SHOWN]
    return "  ".join(f"{label} {score:.2f}" for label, score in best)


def _line(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
