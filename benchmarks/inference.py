"""What an answer costs on one core: a decoded clip of 3 s to its decision, by network and runtime, and what it changes.

python benchmarks/inference.py
python benchmarks/inference.py --clips FOLDER [--networks iteration11 task8] [--answers 20]

With a FOLDER (metadata.csv) each network is trained for some epochs on half of its groups, decisions are compared on up
to 200 clips of the other half, and the table of docs/RESULTS.md is made: the rows of these networks anew, the others
stay. The last line is JSON; `iteration11_vs_eager`
is the network alone, PyTorch fp32 eager over the fastest, at batch 1, by the processor's own time, which other work on
the machine does not lengthen; `p50_ms` and `p99_ms` are of whole answers, by the clock.
"""

import os

os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before torch counts its threads

import argparse  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import re  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import soundfile as sf  # noqa: E402
import torch  # noqa: E402

from instrunet import engines, parity, runtime  # noqa: E402
from instrunet.audio.io import Sound  # noqa: E402
from instrunet.bundle import Bundle  # noqa: E402
from instrunet.bundle_spec import BundleSpec  # noqa: E402
from instrunet.data import corpora, parts  # noqa: E402
from instrunet.features import shards  # noqa: E402
from instrunet.features.featurizer import Featurizer, FrontEnd, Statistics  # noqa: E402
from instrunet.features.summary import SummarySpec  # noqa: E402
from instrunet.models import NUMBER_MODELS, ModelSpec, Network  # noqa: E402
from instrunet.models.attentive import AttentiveSpec  # noqa: E402
from instrunet.models.backbone import BackboneSpec  # noqa: E402
from instrunet.models.combined import CombinedSpec  # noqa: E402
from instrunet.models.ensemble import EnsembleSpec  # noqa: E402
from instrunet.models.picture import PictureSpec  # noqa: E402
from instrunet.models.resnet import HarmonicsResnetSpec  # noqa: E402
from instrunet.models.seed_cnn import Iteration11Spec, MultiscaleSpec, Task8Spec  # noqa: E402
from instrunet.models.soundmind import Dense40Spec, SoundMindSpec, SoundMindTimeSpec  # noqa: E402
from instrunet.training.fit import fit  # noqa: E402
from instrunet.training.job import Job  # noqa: E402
from instrunet.training.optim import TrainSpec  # noqa: E402
from instrunet.training.state import BUNDLE_FOLDER  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/RESULTS.md"
COLUMNS = ("network", "runtime", "precision", "largest difference", "decisions changed", "network ms")
COLUMNS += ("answer ms, p50 / p99", "MB")
HEAD = f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}\n"
NATIVE = PictureSpec(size=None)
NETWORKS: dict[str, ModelSpec] = {
    "task8": Task8Spec(),
    "iteration11": Iteration11Spec(),
    "iteration11 native": Iteration11Spec(picture=NATIVE),
    "multiscale native": MultiscaleSpec(picture=NATIVE),
    "harmonics_resnet": HarmonicsResnetSpec(),
    "soundmind_time": SoundMindTimeSpec(),
    "attentive": AttentiveSpec(),
    "backbone": BackboneSpec(),
    "ensemble": EnsembleSpec(),
    "combined": CombinedSpec(
        kind="single",
        members=(AttentiveSpec(), HarmonicsResnetSpec()),
        temperatures=(1.0, 1.0),
        weights=(0.5, 0.5),
    ),
    "soundmind": SoundMindSpec(),
    "dense40": Dense40Spec(),
}
LABELS = tuple("abcdefghijk")
TRAINED, COMPARED, EPOCHS = 300, 200, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--answers", type=int, default=200, help="timed, of each row")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, found, eager, models = [], {}, {}, [NETWORKS[name] for name in args.networks]
    with tempfile.TemporaryDirectory() as folder:
        clips = _clips(args.clips, Path(folder), models) if args.clips else []
        for name in args.networks:
            bundle = _trained(NETWORKS[name], Path(folder), name) if clips else _untrained(NETWORKS[name])
            for row in _rows(name, bundle, clips, args.answers):
                rows.append(row)
                found[f"{name} {row['runtime']} {row['precision']}"] = row
                print(_line(row), flush=True)
            mine = [row["network_ms"] for row in rows if row["network"] == name]
            eager[name] = mine[0] / min(mine)
            if clips:
                _write(args.networks, [_line(row) for row in rows])
        cold_s = _cold_start(bundle, Path(folder))
    print(f"{platform.processor() or platform.machine()}, {_processor()}, load {os.getloadavg()[0]:.1f}")
    summary: dict[str, Any] = {"iteration11_vs_eager": round(eager.get("iteration11", 0.0), 1)}
    for key in ("p50_ms", "p99_ms"):
        summary[key] = {name: row[key] for name, row in found.items()}
    print(json.dumps(summary | {"cold_start_s": cold_s}))


def _rows(name: str, bundle: Bundle, clips: Sequence[Sound], n: int) -> list[dict[str, Any]]:
    wave = clips[0].wave if clips else np.random.default_rng(0).standard_normal(66_150).astype(np.float32) * 0.1
    sound = Sound(np.resize(wave, 66_150))
    if clips:
        bundle = parity.noted(bundle, clips)
    alike = {(p.runtime, p.precision): p for p in bundle.spec.runtimes}
    rows, n_bytes = [], sum(p.nbytes for p in bundle.network.parameters())
    for where, precision in runtime.everywhere(bool(bundle.int8)):
        moved = bundle.on(where, precision)
        answers = _times(lambda: moved.decided(sound), n)  # noqa: B023 used at once
        batch = runtime.probe_batch(bundle)
        run = moved._run or engines.by_torch(bundle.network)
        with torch.inference_mode():
            alone = _times(lambda: run(batch), n, time.process_time)  # noqa: B023
        graph = len(runtime.graph(bundle, precision)) if where != "torch" else n_bytes
        at = alike.get((where, precision))
        rows.append(
            {
                **{"network": name, "runtime": where, "precision": precision},
                "largest": at.largest if at else None,
                "changed": f"{at.changed} of {at.n_clips}" if at else "",
                "network_ms": round(statistics.median(alone), 2),
                "p50_ms": round(statistics.median(answers), 2),
                "p99_ms": round(float(np.quantile(answers, 0.99)), 2),
                "mb": round(graph / 1e6, 1),
            }
        )
    return rows


def _line(row: dict[str, Any]) -> str:
    largest = "" if row["largest"] is None else f"{row['largest']:.1e}"
    return (
        f"| `{row['network']}` | {row['runtime']} | {row['precision']} | {largest} | {row['changed']} | "
        f"{row['network_ms']} | {row['p50_ms']} / {row['p99_ms']} | {row['mb']} |"
    )


def _times(work: Callable[[], Any], n: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Milliseconds of each of `n` calls, after three."""
    took = []
    for _ in range(n + 3):
        start = clock()
        work()
        took.append(1e3 * (clock() - start))
    return took[3:]


def _front(model: ModelSpec) -> FrontEnd:
    return FrontEnd(features=(SummarySpec(),)) if model.name in NUMBER_MODELS else FrontEnd()


def _untrained(model: ModelSpec) -> Bundle:
    front = _front(model)
    (name,) = front.shapes()
    made_up = Statistics(mean={name: (-4.0,)}, std={name: (3.0,)}, n_windows=1)
    spec = BundleSpec(kind="single", labels=LABELS, front=front, model=model, statistics=made_up)
    torch.manual_seed(0)
    return Bundle(spec, Network(model, front, made_up, len(LABELS)))


def _clips(folder: Path, home: Path, models: list[ModelSpec]) -> list[Sound]:
    """Features of half of the groups under `home`, those that the models need, and sounds of the other half."""
    frame = corpora.read(corpora.recognise(folder)).sample(frac=1, random_state=0)
    groups = sorted(set(frame["group"]))
    train = frame[frame["group"].isin(groups[::2])].head(TRAINED)
    rows = train.assign(split=["val" if k % 6 == 0 else "train" for k in range(len(train))]).to_dict("records")
    for front in {str(_front(model)): _front(model) for model in models}.values():
        table = shards.make_part(rows, Featurizer(front))
        path = parts.part_path(_features(home, front), shards.KIND, 0)
        parts.publish(path, lambda aside, made=table: pq.write_table(made, aside))  # type: ignore[misc]
    bundle = _untrained(NETWORKS["task8"])
    others = frame[frame["group"].isin(groups[1::2])].head(COMPARED)
    return [bundle.read(path) for path in others["uri"]]


def _features(home: Path, front: FrontEnd) -> Path:
    return home / front.features[0].name


def _trained(model: ModelSpec, folder: Path, name: str) -> Bundle:
    front = _front(model)
    features = _features(folder, front)
    held = shards.load(features, front, "train")
    labels = tuple(sorted({label for own in held.clips["labels"] for label in own}))
    spec = BundleSpec(
        kind="single", labels=labels, front=front, model=model, statistics=shards.statistics_of(features, 1)
    )
    home = folder / name.replace(" ", "-")
    home.mkdir()
    train = TrainSpec(epochs=EPOCHS, batch_size=32, keep="last", specaugment=None)
    job = Job(spec, train, features)
    fit(job, lambda seen, save: save(home) if seen["epoch"] == EPOCHS - 1 else None, torch.device("cpu"))
    return Bundle.load(home / BUNDLE_FOLDER)


def _cold_start(bundle: Bundle, folder: Path) -> float:
    """Of jobs/predict.py on one file, the median of three."""
    saved, path = bundle.save(folder / "cold"), folder / "cold.wav"
    sf.write(path, np.sin(np.arange(66_150) / 20) * 0.3, 22_050)
    command = [sys.executable, str(ROOT / "jobs/predict.py"), str(saved), str(path), "--json"]
    took = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        took.append(time.perf_counter() - start)
    return round(statistics.median(took), 2)


def _processor() -> str:
    """As Linux calls it, and whether it multiplies matrices."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    name = re.search(r"model name\s*: (.*)", text)
    return f"{name[1] if name else 'unknown'}, {'with' if 'amx_bf16' in text else 'without'} AMX"


def _write(networks: list[str], lines: list[str]) -> None:
    """Their rows, in place of those that were there."""
    page = PAGE.read_text(encoding="utf-8")
    table = re.compile(re.escape(HEAD) + r"((?:\|.*\n)*)")
    there = table.search(page)
    assert there, f"{PAGE} has lost the head of its table"
    kept = [line for line in there[1].splitlines() if line.split("`")[1] not in networks]
    order = [f"| `{name}` |" for name in NETWORKS]
    told = sorted([*kept, *lines], key=lambda line: [line.startswith(name) for name in order].index(True))
    PAGE.write_text(table.sub(lambda _: HEAD + "\n".join(told) + "\n", page), encoding="utf-8")


if __name__ == "__main__":
    main()
