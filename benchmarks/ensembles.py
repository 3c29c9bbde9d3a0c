"""An ensemble and the student that it teaches against their best member, on groups that none of them has heard.

python benchmarks/ensembles.py OUT emotion=FOLDER irmas=FOLDER [k=v]

Per corpus: a study of three members, `jobs/ensemble.py`, a student with and without the teacher, and one evaluation of
all on the test split, by pairs. What is done is found done. `k=v` go to every job (train.epochs=40). The last line is
JSON: each one's gain over the best member.
"""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from instrunet.config import fingerprint
from instrunet.ensembles.mix import METHODS

ROOT = Path(__file__).parent.parent
CONFIG = "configs/tune/members.yaml"
OF = {
    "emotion": ("front.window_s=4", "front.hop_s=4", "front.length=adaptive", "front.trim_db=35"),
    "irmas": ("data.name=irmas", "task=instruments"),
}
STUDENT = "model={name: attentive, stem: 8, widths: [8, 16, 32], pools: [[2, 2], [2, 2], [2, 2]]}"
MAIN = "balanced_accuracy"


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(f"expected OUT and emotion=FOLDER, irmas=FOLDER or both, got too little\n{__doc__}")
    out, found = Path(sys.argv[1]).absolute(), {}
    words = [word.partition("=") for word in sys.argv[2:]]
    folders = {name: Path(value).absolute() for name, _, value in words if name in OF}
    more = [f"{name}={value}" for name, _, value in words if name not in OF]
    for name, folder in folders.items():
        rows = compared(name, folder, out / name, more)
        print("\n".join(_table(name, rows)))
        found[name] = {row["name"]: row["gain"] for row in rows if row["gain"]}
    print(json.dumps(found))


def compared(name: str, folder: Path, out: Path, more: list[str]) -> list[dict[str, Any]]:
    """The best member, the ensemble, the student and the same network without a teacher: each on the test split."""
    common = [*OF[name], f"data.root={folder}", f"out={out}", "tracking.enabled=false", *more]
    study = _run("jobs/tune.py", CONFIG, *common)
    own = out / fingerprint(common)[:8]
    ensemble, record = own / "ensemble" / "bundle", own / "ensemble" / "ensemble.json"
    if not record.is_file():
        shutil.rmtree(ensemble.parent, ignore_errors=True)  # of a run that was killed
        _run("jobs/ensemble.py", study, CONFIG, *common, "--out", str(ensemble.parent))
    ways = json.loads(record.read_text(encoding="utf-8"))["ways"]
    member = max((way for way in ways if way["name"] not in METHODS), key=lambda way: way["validation"])
    alone = _run("jobs/train.py", CONFIG, *common, STUDENT)
    taught = _run("jobs/train.py", CONFIG, *common, STUDENT, f"distill.teacher={ensemble}")
    report, bundles = own / "report", [member["bundle"], str(ensemble), taught, alone]
    if not (report / "metrics.json").is_file():
        _run("jobs/evaluate.py", *bundles, CONFIG, *common, "--out", str(report))
    tree = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    first = {"figure": [tree["metrics"][MAIN], *tree["metrics"]["intervals"][MAIN]], "gain": None}
    others = [{"figure": one["figures"][MAIN], "gain": one["gain"][MAIN]} for one in tree["rivals"]]
    names = ("best member", "ensemble", "student", "student without a teacher")
    sizes = [tree["n_parameters"], *(one["n_parameters"] for one in tree["rivals"])]
    rows = zip(names, sizes, [first, *others], strict=True)
    return [{"name": name, "n_parameters": size, **figures} for name, size, figures in rows]


def _run(*words: str) -> str:
    """The last line of stdout: what was made."""
    print("$ python", shlex.join(words), file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def _table(name: str, rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"\n## {name}\n",
        "| what | parameters | balanced accuracy | over the best member |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        value, low, high = row["figure"]
        gain = "" if row["gain"] is None else "{:+.3f} ({:+.2f} to {:+.2f})".format(*row["gain"])
        lines.append(f"| {row['name']} | {row['n_parameters']:,} | {value:.3f} ({low:.2f} to {high:.2f}) | {gain} |")
    return lines


if __name__ == "__main__":
    main()
