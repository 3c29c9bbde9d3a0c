"""Sixteen short trials, two at a time: what Tune adds to their training, and what stopping early saves.

The last line is JSON. `tune_overhead`: seconds of the study over the summed training seconds of its trials divided by
the parallelism; starting Ray is not in it. `asha_epoch_share`: epochs that ASHA spent on the same configurations over
those of random search, where its best is no worse; 1 where it is.
"""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from instrunet import experiment as experiments
from instrunet.search.run import Run
from instrunet.search.space import configurations, recipe_key
from instrunet.search.summary import ranked
from pipelines import cluster, study, train, trials
from pipelines.console import bar
from pipelines.study import Study

SAMPLES, EPOCHS = 16, 12
CONFIG = "configs/tune/smoke.yaml"


def main() -> None:
    with TemporaryDirectory() as folder:
        everything, wall_s, parallel = searched("random", Path(folder))
        stopped, _, _ = searched("asha", Path(folder))
    trained_s = sum(run.seconds for run in everything)
    metric = "val_balanced_accuracy"
    best, theirs = (ranked(runs, metric, 1)[0].score(metric) for runs in (everything, stopped))
    spent, share = (sum(run.epochs for run in runs) for runs in (everything, stopped))
    print(f"random: {spent:g} epochs, {trained_s:.0f} s of training in {wall_s:.0f} s, best {best:.3f}")
    print(f"asha: {share:g} epochs, best {theirs:.3f}")
    found = {
        "tune_overhead": wall_s / (trained_s / parallel),
        "asha_epoch_share": share / spent if theirs >= best else 1.0,
    }
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


def searched(scheduler: str, folder: Path) -> tuple[list[Run], float, int]:
    """The trials of a study, its seconds, and how many of them run at a time."""
    said = [f"out={folder / 'runs'}", f"data.root={folder / 'corpus'}", f"tune.scheduler={scheduler}"]
    said += [f"tune.samples={SAMPLES}", f"train.epochs={EPOCHS}", "train.early_stop_patience=99"]
    spec = experiments.load(CONFIG, [*said, "tracking.enabled=false"])
    search = spec.tune
    assert search, "the configuration is that of a study"
    ones = configurations(search.space, search.samples, spec.train.seed)
    job = train.job_for(spec, verbose=False)
    home = train.run_folder(spec, job.draft, "tune")
    trials.write_inputs(home, spec, {recipe_key(spec): job})
    cluster.connect(spec.cluster, verbose=False)
    asked = Study(home, search, spec.cluster, EPOCHS, spec.train.seed, SAMPLES * EPOCHS)
    with bar("trials", len(ones)) as progress:
        began = time.perf_counter()
        runs = study.run(asked, ones, study.RAY, progress)
    return runs, time.perf_counter() - began, search.concurrent


if __name__ == "__main__":
    main()
