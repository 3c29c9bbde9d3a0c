"""What evaluation costs beside the predictions alone: 10,000 windows scored, and all the figures made of them; and how
long the report of 5,000 clips takes.

python benchmarks/evaluation.py [--windows 10000] [--kind single] [--clips 5000]

Windows of the demo's grid (64 bands, 130 frames) and its network on one thread, 4 a clip, 5 clips a recording, with
random numbers for sound: figures cost the same whatever they say. Seconds are of the processor, but `report_5000_s` is
a clock's, on all cores, from scores to the finished folder, under all rules, with what is heard, looked at and played
(`report_5000_cpu_s` says more where cores are shared). The last line is JSON: `ratio` is the evaluation, predictions
included, over the predictions alone, and `ratio_rules` the same under all rules.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import soundfile as sf
import torch

from instrunet.bundle import Bundle
from instrunet.bundle_spec import BundleSpec
from instrunet.data.corpora import IRMAS_CLASSES
from instrunet.drift import Profile
from instrunet.experiment import ClusterSpec
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.features.logmel import LogMelSpec
from instrunet.features.measures import NAMES
from instrunet.features.shards import Features
from instrunet.metrics import voting
from instrunet.metrics.voting import by_clip
from instrunet.models import Network
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Iteration11Spec
from instrunet.protocols import table
from instrunet.report.build import build
from instrunet.scoring import CLIP, Scored, belief, judge, score
from pipelines.evaluate import evaluated
from pipelines.sides import Side

PER_CLIP, PER_GROUP = 4, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=10_000)
    parser.add_argument("--kind", choices=("single", "multi"), default="single")
    parser.add_argument("--clips", type=int, default=5000, help="of the report that is timed")
    args = parser.parse_args()
    report_s, report_cpu_s = seconds_of_a_report(args.clips, args.kind)
    torch.set_num_threads(1)
    bundle, held = bundle_of(args.kind), windows_of(args.windows, args.kind)
    features = {name: torch.from_numpy(values) for name, values in held.values.items()}
    bundle.predict({name: values[:256] for name, values in features.items()})  # warm
    predict_s = seconds(lambda: bundle.predict(features))
    began = time.process_time()
    scored = score(bundle, held)
    judgement = judge(bundle, scored)
    metrics, told, rows = judgement.metrics(), judgement.decided, belief(bundle, scored, judgement)
    evaluate_s = time.process_time() - began
    assert metrics["n"] == len(told) == args.windows // PER_CLIP and rows
    rules_s = seconds(lambda: table(bundle, scored, tuple(voting.RULES)))
    found = {
        "windows": args.windows,
        "kind": args.kind,
        "predict_s": round(predict_s, 2),
        "evaluate_s": round(evaluate_s, 2),
        "rules_s": round(rules_s, 2),
        "ratio": round(evaluate_s / predict_s, 3),
        "ratio_rules": round((evaluate_s + rules_s) / predict_s, 3),
        f"report_{args.clips}_s": round(report_s, 1),
        f"report_{args.clips}_cpu_s": round(report_cpu_s, 1),
    }
    print(json.dumps(found))


def seconds(work: object) -> float:
    assert callable(work)
    began = time.process_time()
    work()
    return time.process_time() - began


def seconds_of_a_report(n_clips: int, kind: str) -> tuple[float, float]:
    """By the clock and of the processors; scores are drawn at random, as predictions are no part of it."""
    bundle, held = bundle_of(kind), windows_of(n_clips * PER_CLIP, kind)
    with TemporaryDirectory() as home:
        sound = Path(home) / "noise.wav"
        rate, window_s = bundle.spec.front.sample_rate, bundle.spec.front.window_s
        noise = np.random.default_rng(1).standard_normal(int(PER_CLIP * window_s * rate)) / 10
        sf.write(sound, noise, rate)
        side = side_of(bundle, held, str(sound))
        began, began_cpu = time.perf_counter(), time.process_time()
        rules = tuple(voting.RULES)
        told = replace(evaluated(side, ClusterSpec()), protocols=[asdict(r) for r in table(bundle, side.scored, rules)])
        build(told, Path(home) / "report")
        return time.perf_counter() - began, time.process_time() - began_cpu


def side_of(bundle: Bundle, held: Features, uri: str) -> Side:
    """Its clips in two genres, all of one file."""
    logits = np.random.default_rng(2).standard_normal((len(held), len(bundle.spec.labels))).astype(np.float32)
    first = slice(None, None, PER_CLIP)
    clips = pd.DataFrame({name: held.clips[name][first] for name in CLIP})
    scored = Scored(by_clip(held.clips["clip_id"], bundle.activated(logits))[1], clips, logits, held.clips["clip_id"])
    frame = clips[["clip_id"]].assign(uri=uri, start_s=0.0, n_bytes=0)
    frame["traits"] = [["genre=pop" if k % 3 else "genre=jazz"] for k in range(len(frame))]
    return Side(Path("bundle"), bundle, frame, Path(), held, scored, judge(bundle, scored), [])


def bundle_of(kind: str) -> Bundle:
    measured = measures_of(1000)
    spec = BundleSpec.model_validate(
        {
            "kind": kind,
            "labels": IRMAS_CLASSES,
            "front": FrontEnd(features=(LogMelSpec(n_mels=64),)),
            "model": Iteration11Spec(picture=PictureSpec(size=None, colour=False)),
            "statistics": Statistics(mean={"logmel": (0.0,)}, std={"logmel": (1.0,)}, n_windows=1),
            "profile": Profile.of(measured, [[IRMAS_CLASSES[k % len(IRMAS_CLASSES)]] for k in range(len(measured))]),
        }
    )
    torch.manual_seed(0)
    return Bundle(spec, Network(spec.model, spec.front, spec.statistics, len(spec.labels)))


def windows_of(n: int, kind: str) -> Features:
    rng = np.random.default_rng(0)
    shape = FrontEnd(features=(LogMelSpec(n_mels=64),)).shapes()["logmel"]
    values = rng.standard_normal((n, *shape), np.float32).astype(np.float16)
    clip = np.arange(n) // PER_CLIP
    several = rng.random((n // PER_CLIP, len(IRMAS_CLASSES))) < 0.2
    labels = [
        [IRMAS_CLASSES[k % len(IRMAS_CLASSES)]]
        if kind == "single"
        else [name for name, yes in zip(IRMAS_CLASSES, several[k], strict=True) if yes]
        for k in range(n // PER_CLIP)
    ]
    names = [f"clip{k:05d}" for k in clip]
    columns = {"clip_id": names, "uri": names, "group": [f"group{k // PER_GROUP}" for k in clip]}
    measured = measures_of(n // PER_CLIP)
    more = {"labels": [labels[k] for k in clip], "split": ["test"] * n, "corpus": ["random"] * n}
    more |= {"measures": [measured[k] for k in clip], "start_s": list(np.arange(n) % PER_CLIP * 3.0)}
    return Features({"logmel": values}, columns | more)


def measures_of(n: int) -> list[list[float]]:
    return np.random.default_rng(3).normal(10, 1, (n, len(NAMES))).tolist()


if __name__ == "__main__":
    main()
