"""What evaluation costs beside the predictions alone: 10,000 windows scored, and all the figures made of them.

python benchmarks/evaluation.py [--windows 10000] [--kind single]

Windows of the demo's grid (64 bands, 130 frames) and its network on one thread, 4 a clip, 5 clips a recording, with
random numbers for sound: figures cost the same whatever they say. Seconds are of the processor. The last line is JSON:
`ratio` is the evaluation, predictions included, over the predictions alone, and `ratio_rules` the same under all rules.
"""

import argparse
import json
import time

import numpy as np
import torch

from instrunet.bundle import Bundle
from instrunet.bundle_spec import BundleSpec
from instrunet.data.corpora import IRMAS_CLASSES
from instrunet.features.featurizer import FrontEnd, Statistics
from instrunet.features.logmel import LogMelSpec
from instrunet.features.shards import Features
from instrunet.metrics import voting
from instrunet.models import Network
from instrunet.models.picture import PictureSpec
from instrunet.models.seed_cnn import Iteration11Spec
from instrunet.protocols import table
from instrunet.scoring import belief, judge, score

PER_CLIP, PER_GROUP = 4, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=10_000)
    parser.add_argument("--kind", choices=("single", "multi"), default="single")
    args = parser.parse_args()
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
    }
    print(json.dumps(found))


def seconds(work: object) -> float:
    assert callable(work)
    began = time.process_time()
    work()
    return time.process_time() - began


def bundle_of(kind: str) -> Bundle:
    spec = BundleSpec.model_validate(
        {
            "kind": kind,
            "labels": IRMAS_CLASSES,
            "front": FrontEnd(features=(LogMelSpec(n_mels=64),)),
            "model": Iteration11Spec(picture=PictureSpec(size=None, colour=False)),
            "statistics": Statistics(mean={"logmel": (0.0,)}, std={"logmel": (1.0,)}, n_windows=1),
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
    more = {"labels": [labels[k] for k in clip], "split": ["test"] * n, "corpus": ["random"] * n, "measures": [[]] * n}
    return Features({"logmel": values}, columns | more)


if __name__ == "__main__":
    main()
