"""Sixteen short trials, two at a time: what Tune adds to their training, and what stopping early saves.

The last line is JSON. `tune_overhead`: seconds of the study over the summed training seconds of its trials divided by
the parallelism; starting Ray is not in it. `asha_epoch_share`: epochs that ASHA has spent when it first reaches the
best score of random search, over those of random search; 1 where it does not. It draws the same configurations and then
some more, and spends less on each.
"""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from instrunet import experiment as experiments
from instrunet.search.run import Run
from instrunet.search.space import configurations, recipe_key
from instrunet.search.summary import ranked
from pipelines import cluster, study, train, trials
from pipelines.console import bar
from pipelines.study import Study

SAMPLES, MORE, EPOCHS = 16, 8, 12
GRACE = 2  # after one epoch every network here answers at random
CONFIG = "configs/tune/smoke.yaml"


def main() -> None:
    metric = "val_balanced_accuracy"
    with TemporaryDirectory() as folder:
        everything, wall_s, parallel, _ = searched("random", SAMPLES, Path(folder))
        _, _, _, told = searched("asha", SAMPLES + MORE, Path(folder))
        best = ranked(everything, metric, 1)[0].score(metric)  # in its bundle, which goes with the folder
    trained_s, spent = sum(run.seconds for run in everything), sum(run.epochs for run in everything)
    scores = [row[metric] for row in told]
    until = next((n for n, score in enumerate(scores, 1) if score >= best), None)
    print(f"random: {spent:g} epochs, {trained_s:.0f} s of training in {wall_s:.0f} s, best {best:.3f}")
    print(f"asha: {len(scores)} epochs, best {max(scores):.3f}; as good after {until or 'more than these'}")
    found = {"tune_overhead": wall_s / (trained_s / parallel), "asha_epoch_share": min(1.0, (until or spent) / spent)}
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


def searched(scheduler: str, samples: int, folder: Path) -> tuple[list[Run], float, int, list[dict[str, Any]]]:
    """The trials of a study, its seconds, how many of them run at a time, and each epoch as it was told."""
    said = [f"out={folder / 'runs'}", f"data.root={folder / 'corpus'}", f"tune.scheduler={scheduler}"]
    said += [f"tune.samples={samples}", f"train.epochs={EPOCHS}", "train.early_stop_patience=99"]
    said += [f"tune.grace_epochs={GRACE}"]
    spec = experiments.load(CONFIG, [*said, "tracking.enabled=false"])
    search = spec.tune
    assert search, "the configuration is that of a study"
    ones = configurations(search.space, search.samples, spec.train.seed)
    job = train.job_for(spec, verbose=False)
    home = train.run_folder(spec, job.draft, "tune")
    trials.write_inputs(home, spec, {recipe_key(spec): job})
    cluster.connect(spec.cluster, verbose=False)
    asked = Study(home, search, spec.cluster, EPOCHS, spec.train.seed, samples * EPOCHS)
    with bar("trials", len(ones)) as progress:
        began = time.perf_counter()
        runs = study.run(asked, ones, study.RAY, progress)
    took_s = time.perf_counter() - began
    lines = [line for path in (home / study.RAY).glob("*/result.json") for line in path.read_text().splitlines()]
    told = [row for row in map(json.loads, lines) if "epoch_s" in row]
    return runs, took_s, search.concurrent, sorted(told, key=lambda row: row["timestamp"])


if __name__ == "__main__":
    main()
