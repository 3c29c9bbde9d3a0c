"""The table of docs/RESULTS.md: each row by the commands that it names, on clips of recordings and speakers unheard.

python benchmarks/results.py OUT emotion=FOLDER instruments=FOLDER guitar_notes=FOLDER irmas=FOLDER [--seeds 0 1]

With --premiums each row is trained twice more, by group and at random, to tell how much the latter flatters.

What is trained is found done, so the same command goes on; with a part of the folders it makes their rows alone. The
last line is JSON: the main figure of each row.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from instrunet.scoring import Judgement, told

ROOT = Path(__file__).parent.parent
FOLDS = 4
SHORT = ["train.epochs=20", "train.early_stop_patience=20"]
MOBILE = "model={name: backbone, timm_name: mobilenetv3_small_100, picture: {size: null, colour: false}}"
MULTISCALE = "model={name: multiscale, se: true, picture: {size: null, colour: false}}"
NATIVE = "picture: {size: null, colour: false}"
MULTI = ["task=instruments_multi", "train.monitor=val_macro_f1", "train.class_weights=none"]
POLYMIX = [*MULTI, "train.polymix={}"]
WHOLE = "window_s: 4, hop_s: 4, length: adaptive, trim_db: 35"
NUMBERS = f"front={{features: [{{name: summary}}], {WHOLE}}}"
FRAMES = f"front={{features: [{{name: logmel, n_mels: 64}}], {WHOLE}}}"
COLUMNS = {
    "folds": ("balanced accuracy (UAR)", "accuracy"),
    "official": ("micro F1", "macro F1", "LRAP"),
}
KEYS = {
    "balanced accuracy (UAR)": "balanced_accuracy",
    "accuracy": "accuracy",
    "micro F1": "micro_f1",
    "macro F1": "macro_f1",
    "LRAP": "lrap",
}


@dataclass(frozen=True)
class Row:
    """`judge`: folds by group, or the official test set of the corpus after one training."""

    task: str
    name: str
    config: str
    changes: tuple[str, ...] = ()
    judge: str = "folds"


def rows() -> list[Row]:
    body = {
        "task8": f"model={{name: task8, {NATIVE}}}",
        "iteration11": f"model={{name: iteration11, {NATIVE}}}",
        "multiscale + SE": MULTISCALE,
        "mobilenetv3_small": MOBILE,
    }
    made = [Row("irmas", name, "irmas", (*SHORT, model), "official") for name, model in body.items()]
    made += [
        Row("irmas", f"{name}, polymix", "irmas", (*SHORT, model, *POLYMIX), "official") for name, model in body.items()
    ]
    made += [
        Row("emotion", "the recipe of configs/emotion.yaml", "emotion"),
        Row("emotion", "soundmind", "csv", ("model={name: soundmind}", NUMBERS)),
        Row("emotion", "soundmind_time", "csv", ("model={name: soundmind_time}", FRAMES, "train.clip_norm=1")),
        Row("emotion", "dense40", "csv", ("model={name: dense40}", NUMBERS)),
        Row("instruments", "the recipe of configs/instruments.yaml", "instruments"),
        Row("guitar_notes", "harmonics_resnet", "guitar_notes", ("data.name=csv",)),
    ]
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", nargs="+", metavar="TASK=FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--premiums", action="store_true", help="train each row on a split at random, too")
    args = parser.parse_intermixed_args()
    folders = {name: Path(path).absolute() for name, path in (word.split("=", 1) for word in args.folders)}
    found = []
    wanted = [(row, seed) for row in rows() if row.task in folders and args.only in row.name for seed in args.seeds]
    failed = []
    for row, seed in wanted:
        try:
            found.append(judged(row, folders[row.task], args.out.absolute(), seed))
            if args.premiums:
                found[-1]["premium"] = premium(row, folders[row.task], args.out.absolute(), seed)
        except subprocess.CalledProcessError as error:  # its job has said why; the other rows are worth having
            failed.append(f"{row.task}: {row.name}, seed {seed}: exit code {error.returncode}")
    found += list(_baselines(found, folders))
    text = json.dumps(found, indent=1) + "\n"
    (args.out / "results.json").write_text(text, encoding="utf-8")
    print("\n".join(_table(found)))
    if failed:
        sys.exit("; ".join(failed))
    print(json.dumps({f"{one['task']}: {one['name']}, seed {one['seed']}": one["main"] for one in found}))


def judged(row: Row, folder: Path, out: Path, seed: int) -> dict[str, Any]:
    config, common, report = _asked(row, folder, out, seed)
    if row.judge == "folds":
        commands = [["jobs/evaluate.py", config, *row.changes, *common, "--folds", str(FOLDS), "--out", str(report)]]
        if not (report / "folds.json").exists():
            _run(commands[0])
        tree = json.loads((report / "folds.json").read_text(encoding="utf-8"))["pooled"]
        metrics, audit = tree["metrics"], tree["audit"]
    else:
        commands = [["jobs/train.py", config, *row.changes, *common]]
        if not (report / "metrics.json").exists():
            bundle = _run(commands[0])
            target = [bundle, config, *row.changes, *common, "--split", "official", "--out", str(report)]
            _run(["jobs/evaluate.py", *target])
        tree = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
        metrics, audit = tree["metrics"], "; ".join(tree["leak_reasons"]) or "clean"
        commands.append(["jobs/evaluate.py", "BUNDLE", config, *row.changes, *common, "--split", "official"])
    figures = {name: told(metrics, KEYS[name]) for name in COLUMNS[row.judge]}
    said = [
        shlex.join(["python", *words]).replace(str(folder), "FOLDER").replace(f" out={out}", "") for words in commands
    ]
    main = metrics[KEYS[COLUMNS[row.judge][0]]]
    return {
        "task": row.task,
        "name": row.name,
        "judge": row.judge,
        "seed": seed,
        "figures": figures,
        "main": round(main, 4),
        "audit": audit,
        "commands": said,
        "report": str(report),
    }


def premium(row: Row, folder: Path, out: Path, seed: int) -> str:
    """By how much a split at random flatters: two more trainings, each scored on a test split of its own."""
    config, common, report = _asked(row, folder, out, seed)
    report = report.with_name(f"{report.name}-premium")
    if not (report / "premium.json").exists():
        share = [] if row.judge == "official" else ["split.test=0.25", "split.val=0.1"]
        _run(["jobs/evaluate.py", config, *row.changes, *common, *share, "--leak-premium", "--out", str(report)])
    tree = json.loads((report / "premium.json").read_text(encoding="utf-8"))
    value, limits = tree["premium"]["value"], tree["premium"]["interval"]
    said = f"{value:+.3f}" + (f" ({limits[0]:+.2f} to {limits[1]:+.2f})" if limits else "")
    return f"{said}: {tree['random']['value']:.3f} LEAKY, {tree['grouped']['value']:.3f} held out"


def _asked(row: Row, folder: Path, out: Path, seed: int) -> tuple[str, list[str], Path]:
    common = [f"data.root={folder}", f"out={out}", f"train.seed={seed}", "tracking.enabled=false"]
    name = "-".join(f"{row.task} {row.name} {seed}".replace("configs/", "").split())
    return f"configs/{row.config}.yaml", common, out / "reports" / name.replace(",", "")


def _run(words: list[str]) -> str:
    """The last line of stdout: what was made."""
    print("$ python", shlex.join(words), file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def _baselines(found: list[dict[str, Any]], folders: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """An MFCC + SVM on the very folds of a row, trained on all the other folds."""
    for task in ("emotion", "instruments"):
        ours = [one for one in found if one["task"] == task and one["name"].startswith("the recipe")][:1]
        for one in ours:
            clips = pq.read_table(Path(one["report"]) / "scores.parquet").to_pandas()
            yield _support_vectors(task, clips, folders[task])


def _support_vectors(task: str, clips: pd.DataFrame, folder: Path) -> dict[str, Any]:
    table = pd.read_csv(folder / "metadata.csv")
    numbers = {(folder / path).resolve().as_posix(): _mfcc(folder / path) for path in table["path"]}
    labels = sorted({names[0] for names in clips["labels"]})
    x = np.array([numbers[(folder / uri.removeprefix("file://")).resolve().as_posix()] for uri in clips["uri"]])
    y = np.array([labels.index(names[0]) for names in clips["labels"]])
    fold, guess = clips["fold"].to_numpy(), np.zeros(len(clips), np.int64)
    for k in np.unique(fold):
        machine = make_pipeline(StandardScaler(), SVC(C=10, class_weight="balanced"))
        guess[fold == k] = machine.fit(x[fold != k], y[fold != k]).predict(x[fold == k])
    one_hot = np.eye(len(labels))
    said = Judgement("single", tuple(labels), one_hot[y] > 0, one_hot[guess], np.zeros(0, np.float32), clips["group"])
    metrics = said.metrics()
    return {
        "task": task,
        "name": "MFCC + SVM (20 coefficients, mean and deviation)",
        "judge": "folds",
        "seed": 0,
        "figures": {name: told(metrics, KEYS[name]) for name in COLUMNS["folds"]},
        "main": round(metrics["balanced_accuracy"], 4),
        "audit": "as above",
        "commands": ["(of this script, on the same folds)"],
        "report": "",
    }


def _mfcc(path: Path) -> np.ndarray:
    wave, rate = librosa.load(path, sr=22_050)
    found = librosa.feature.mfcc(y=wave, sr=rate, n_mfcc=20)
    return np.concatenate([found.mean(1), found.std(1)])


def _table(found: list[dict[str, Any]]) -> Iterator[str]:
    for task in dict.fromkeys(one["task"] for one in found):
        own = [one for one in found if one["task"] == task]
        columns = COLUMNS[own[0]["judge"]]
        yield f"\n## {task}\n"
        yield "| what | seed | " + " | ".join(columns) + " | audit | leak premium |"
        yield "| --- " * (4 + len(columns)) + "|"
        for one in own:
            cells = [one["name"], str(one["seed"]), *(one["figures"].get(name, "") for name in columns)]
            yield "| " + " | ".join([*cells, one["audit"], one.get("premium", "")]) + " |"
        yield "\n```"
        yield from dict.fromkeys(f"{line}" for one in own for line in one["commands"])
        yield "```"


if __name__ == "__main__":
    main()
