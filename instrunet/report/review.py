"""Clips to be labelled: `clips/*.wav` to train on, and a page on which each is heard and named by a key."""

import base64
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from markupsafe import Markup

from instrunet.archive.exports import name_of
from instrunet.archive.review import Window
from instrunet.audio import io
from instrunet.bundle_spec import BundleSpec
from instrunet.config import fingerprint
from instrunet.data import places
from instrunet.report import pages
from instrunet.report.shown import MP3_RATES, mp3
from instrunet.report.words import clock

PAGE, CLIPS = "index.html", "clips"
WHERE = "clips.csv"  # of each clip, for jobs/retag.py --labels


def write(folder: Path, windows: Sequence[Window], spec: BundleSpec, root: str, read: io.Read) -> int:
    """Into `folder`; how many clips there are: what cannot be had any more is left out."""
    (folder / CLIPS).mkdir(parents=True)
    rate, clips = spec.front.sample_rate, list[dict[str, Any]]()
    where = [["path", "uri", "start_s", "stop_s"]]
    for k, window in enumerate(windows, 1):
        try:
            with places.sound(window.uri) as path:
                cut = read(path, rate, window.start_s, window.stop_s)
                heard = cut if rate in MP3_RATES else read(path, 22_050, window.start_s, window.stop_s)
        except io.DecodeError:
            continue
        name = f"{CLIPS}/{k:04d}.wav"
        sf.write(folder / name, np.clip(cut.wave, -1, 1), rate, subtype="PCM_16")
        audio = base64.b64encode(mp3(heard, rate if rate in MP3_RATES else 22_050)).decode()
        clips.append(
            {
                "path": name,
                "group": name_of(window.uri, root),
                "when": f"{clock(window.start_s)} to {clock(window.stop_s)}",
                "scores": [round(float(score), 4) for score in window.scores],
                "audio": f"data:audio/mpeg;base64,{audio}",
            }
        )
        where.append([name, window.uri, repr(window.start_s), repr(window.stop_s)])
    with (folder / WHERE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(where)
    (folder / PAGE).write_text(_page(clips, spec), encoding="utf-8")
    return len(clips)


def _page(clips: list[dict[str, Any]], spec: BundleSpec) -> str:
    key = fingerprint([[clip["group"], clip["when"]] for clip in clips])
    data = {"clips": clips, "labels": list(spec.labels), "kind": spec.kind, "key": f"instrunet-review-{key}"}
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return pages.render("review.html", clips=clips, kind=spec.kind, data=Markup(text))
