"""What happens in a training run, as it happens: from Ray Train's controller to the driver's console and tracker."""

import threading
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from instrunet import errors
from instrunet.data import parts
from instrunet.errors import InstrunetError, JobError
from instrunet.training.fit import Metrics
from instrunet.training.optim import TrainSpec
from pipelines.console import Bar
from pipelines.tracking import Tracker

TENSORBOARD = "tensorboard"


@ray.remote(num_cpus=0)
class Mailbox:
    """Events from the controller to the driver, from whatever node it runs on."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._asked = False
        self._answer: str | None = None

    def put(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def take(self) -> list[dict[str, Any]]:
        taken, self.events = self.events, []
        return taken

    def ask(self) -> None:
        """For a checkpoint, as the driver has to go."""
        self._asked = True

    def asked(self) -> bool:
        return self._asked

    def reply(self, said: str) -> None:
        self._answer = said

    def answer(self) -> str | None:
        return self._answer


def mailbox() -> Any:
    """On the driver's own node: any other may be lost while the job goes on."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Mailbox.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]


class Reporter(ray.train.UserCallback):
    """Runs in Ray Train's controller; sends what it sees to the driver's mailbox."""

    def __init__(self, mailbox: Any) -> None:
        self.mailbox = mailbox

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        del run_context, checkpoint
        self.mailbox.put.remote({"metrics": metrics[0], "pids": [m["pid"] for m in metrics]})

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        del run_context
        self.mailbox.put.remote({"restart": {rank: type(e).__name__ for rank, e in worker_exceptions.items()}})


class Reader:
    """A thread of the driver that shows and records events while `fit` blocks."""

    def __init__(self, mailbox: Any, progress: Bar, tracker: Tracker, home: Path, spec: TrainSpec) -> None:
        self.mailbox, self.progress, self.tracker, self.spec = mailbox, progress, tracker, spec
        self.pids, self.events = home / "workers.json", home / TENSORBOARD
        self.restarts = 0
        self.error: InstrunetError | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        self._drain()

    def _watch(self) -> None:
        while not self._end.wait(0.5):
            self._drain()

    def _drain(self) -> None:
        for event in ray.get(self.mailbox.take.remote()):
            if "metrics" in event:
                self._recorded(event["metrics"], event["pids"])
            elif "restart" in event:
                self.restarts += 1
                ranks = ", ".join(f"rank {rank}: {name}" for rank, name in event["restart"].items())
                self.progress.line(f"a worker was lost ({ranks}); going on from the last checkpoint")
            else:
                self.error = getattr(errors, event["kind"])(event["error"])

    def _recorded(self, metrics: Metrics, pids: list[int]) -> None:
        """A disk that is full fails the run when it has ended, not this thread; nothing that it has to say is lost."""
        try:
            self._epoch(metrics, pids)
        except OSError as error:
            said = f"the record of the run cannot be written: {error}; make room, then the same command goes on"
            self.error = self.error or JobError(said)

    def _epoch(self, metrics: Metrics, pids: list[int]) -> None:
        parts.write_json(self.pids, pids)  # for whoever must look at, or stop, a worker
        shown = {k: v for k, v in metrics.items() if k != "pid"}
        self.tracker.metrics(self.spec.tick(shown), shown)
        write_events(self.events, shown, self.spec.tick(shown))
        self.progress.line(epoch_line(shown))
        self.progress.set(int(shown["epoch"] + 1), self.spec.epochs)


def write_events(folder: Path, metrics: Metrics, tick: int) -> None:
    """A validation for TensorBoard; each call is a file of its own, so a dead driver leaves none half-open."""
    from torch.utils.tensorboard import SummaryWriter  # a second, and only where something is trained

    with SummaryWriter(str(folder), filename_suffix=f".{tick:04d}") as writer:
        for name, value in metrics.items():
            if name not in ("epoch", "step"):
                writer.add_scalar(name, value, tick)


def epoch_line(metrics: Metrics) -> str:
    scores = "  ".join(
        f"{k.removeprefix('val_')} {v:.3f}" for k, v in metrics.items() if k.startswith(("val_", "learnt_"))
    )
    rate = f"{metrics['clips_per_s']:.0f} clips/s, {metrics['wait_share']:.1%} waiting"
    if "recoveries" in metrics:
        rate += f" | after {metrics['recoveries']:.0f} collapses"
    done = metrics["epoch"] + 1
    when = f"epoch {done:3.0f}" if done.is_integer() else f"epoch {done:6.2f}"
    return f"{when}  train loss {metrics['train_loss']:.3f}  | {scores} | {rate}"
