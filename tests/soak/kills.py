"""Twelve kills of a training at random moments, each resumed to its end: what was lost, and are the weights the same?

`make soak`. In turn a worker gets SIGKILL, the driver SIGKILL, the driver SIGTERM: processes started here, by pid.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent.parent))

from conftest import environment, make_place

from instrunet.data.synth import SynthSpec, write_corpus

KILLS, SEED, EVERY = 12, 0, 5
JOB = (
    "python jobs/train.py configs/smoke.yaml data.name=irmas data.root=CORPUS tracking.enabled=false "
    f"train.batch_size=8 train.epochs=16 train.val_every_steps={EVERY} train.early_stop_patience=99 "
    "train.schedule=cosine "
    "train.on_collapse=ignore train.ema=0.9 model.name=task8 model.picture.size=null model.picture.colour=false "
    "front.features.0.n_mels=32"
)
WAYS = ("worker SIGKILL", "driver SIGKILL", "driver SIGTERM")
TIMING = ("clips_per_s", "wait_share", "epoch_s")


class Run:
    """A training in a folder of its own, on features that were made before."""

    def __init__(self, place: Path, corpus: Path, features: Path | None = None) -> None:
        self.place = make_place(place)
        (place / "CORPUS").symlink_to(corpus)
        if features:
            (place / "runs").mkdir()
            (place / "runs/features").symlink_to(features)

    def start(self) -> "subprocess.Popen[str]":
        with (self.place / "log").open("a") as log:
            command = ["bash", "-c", f"exec {JOB}"]
            calm = environment() | {"RAY_worker_niceness": "0"}  # at 15, other work on the machine starves them
            return subprocess.Popen(command, cwd=self.place, env=calm, stdout=log, stderr=log, text=True)

    @property
    def log(self) -> str:
        return (self.place / "log").read_text()

    @property
    def n_validations(self) -> int:
        return len(re.findall(r"^epoch", self.log, re.MULTILINE))

    def checkpoint(self) -> int:
        """The step of the newest one; 0 without any."""
        names = [path.name for path in self.place.glob("runs/train/*/checkpoints/step-*")]
        return max((int(name.split("-")[1]) for name in names), default=0)

    def until(self, n_validations: int, job: "subprocess.Popen[str]") -> None:
        while self.n_validations < n_validations and job.poll() is None:
            time.sleep(0.05)

    def result(self) -> tuple[bytes, list[dict[str, float]]]:
        (home,) = self.place.glob("runs/train/*")
        history = json.loads((home / "history.json").read_text())
        figures = [{k: v for k, v in row.items() if k not in TIMING} for row in history]
        return (home / "bundle/weights.safetensors").read_bytes(), figures


def kill(run: Run, job: "subprocess.Popen[str]", way: str, rng: random.Random) -> int:
    """How the job ended; one whose worker was killed goes on by itself."""
    if way == "worker SIGKILL":
        (pids,) = run.place.glob("runs/train/*/workers.json")
        os.kill(rng.choice(json.loads(pids.read_text())), signal.SIGKILL)
    else:
        job.send_signal(signal.SIGKILL if way == "driver SIGKILL" else signal.SIGTERM)
    return job.wait(600)


def one(home: Path, number: int, way: str, wanted: tuple[bytes, list[dict[str, float]]], first: Run) -> bool:
    rng = random.Random(SEED * 1000 + number)
    run = Run(home / str(number), first.place / "CORPUS", first.place / "runs/features")
    job = run.start()
    run.until(rng.randrange(1, len(wanted[1]) - 2), job)
    time.sleep(rng.uniform(0, 0.5))  # anywhere within the interval, or the next
    if job.poll() is not None:
        print(f"{number:2d}  {way}: came too late; the training had ended", flush=True)
        return False
    told, before = run.n_validations, run.checkpoint()
    code = kill(run, job, way, rng)
    kept = before if way == "worker SIGKILL" else run.checkpoint()
    again = code if way == "worker SIGKILL" else run.start().wait(600)
    same = again == 0 and run.result() == wanted
    lost = max(0, told * EVERY - kept)
    print(
        f"{number:2d}  {way}, exit {code}; step {told * EVERY} was reported, step {kept} kept: "
        f"{lost} reported steps and less than {EVERY} others lost; "
        f"weights and figures {'equal' if same else 'DIFFER'}",
        flush=True,
    )
    expected = {"worker SIGKILL": 0, "driver SIGKILL": -signal.SIGKILL, "driver SIGTERM": 143}[way]
    return same and lost == 0 and code == expected


def main() -> int:
    with TemporaryDirectory(prefix="soak-") as folder:
        home = Path(folder)
        spec = SynthSpec(recordings=4, clips=2, clip_s=1.0, mixtures=4, sample_rate=22_050)
        first = Run(home / "undisturbed", write_corpus(spec, home / "corpus"))
        began = time.monotonic()
        assert first.start().wait(900) == 0, first.log
        print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
        wanted = first.result()
        ways = [WAYS[k % len(WAYS)] for k in range(KILLS)]
        right = sum(one(home, k + 1, way, wanted, first) for k, way in enumerate(ways))
    print(f"{right} of {KILLS}")
    return 0 if right == KILLS else 1


if __name__ == "__main__":
    sys.exit(main())
