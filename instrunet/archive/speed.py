"""How fast an archive is tagged, stage by stage: tried on a few units before, added up over all parts after.

`fetch` waits for a store, beside all else; `decode`, `features`, `network` and `write` take turns on a core. An hour of
audio is an hour of sound, a core hour is an hour of one core that was there for the job, busy or not; a GPU hour
likewise. Where GPUs are, the cores are those that decode for them.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple

from pydantic import Field

from instrunet.archive.units import WorkList
from instrunet.config import Spec

SPEED = "speed.json"
STAGES = ("fetch", "decode", "features", "network", "write")
COUNTS = ("files", "bad", "audio_s", "gets")
TRIED, TRIED_S = 6, 30.0  # units of a probe, and how much of each: a second or two of a core in all
WORTH = 60  # parts: with fewer (of an hour at most, see `bounds_of`) a probe takes longer than it saves
SLACK = 1.25  # more actors than would do if an actor's store came in while it works, and never besides


class Prices(Spec):
    """What is paid, in any currency; what is not priced costs nothing."""

    core_hour: float = Field(0.0, ge=0)
    gpu_hour: float = Field(0.0, ge=0)
    gets_1000: float = Field(0.0, ge=0)  # a thousand requests that read
    puts_1000: float = Field(0.0, ge=0)

    @classmethod
    def of(cls, text: str) -> "Prices":
        """`core_hour=0.04,gets_1000=0.0004`."""
        return cls.parse(dict(pair.partition("=")[::2] for pair in text.split(",") if pair), "--prices")


class Clock:
    """Seconds of each stage, for which threads may share a clock. What several decoders do side by side counts once."""

    def __init__(self, n_decoders: int = 1, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._beside, self._lock = dict.fromkeys(("fetch", "decode"), n_decoders), Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = self._now()
        try:
            yield
        finally:
            self.add(stage, began)

    def add(self, stage: str, began: float) -> None:
        with self._lock:
            self.seconds[stage] += (self._now() - began) / self._beside.get(stage, 1)


class Done(NamedTuple):
    """How far a job is: what its bar says."""

    files: int
    audio_h: float
    rate: float  # hours of sound an hour
    bad: int

    def __str__(self) -> str:
        bad = f", {self.bad} bad" if self.bad else ""
        return f"{self.files} files, {self.audio_h:.1f} h of sound at {self.rate:.0f} h an hour{bad}"


class Speed:
    """What the parts of one process took, added up as they come."""

    def __init__(self, n_parts: int, cores: int, actors: int, gpus: int = 0) -> None:
        self.n_parts, self.cores, self.actors, self.gpus, self.n_made = n_parts, cores, actors, gpus, 0
        self.windows = 0  # of a batch on a GPU: what the last actor to tell took
        self.sums = dict.fromkeys((*COUNTS, *STAGES), 0.0)
        self._began = time.perf_counter()

    def add(self, made: Mapping[str, Any]) -> Done:
        """With the summary of one more part."""
        self.n_made += 1
        self.windows = made["windows"] or self.windows
        for name in self.sums:
            self.sums[name] += made[name]
        hours = self.sums["audio_s"] / 3600
        return Done(int(self.sums["files"]), hours, hours / self._hours(), int(self.sums["bad"]))

    def report(self, prices: Prices, tried: Mapping[str, float] | None) -> dict[str, Any]:
        audio_h, hours = self.sums["audio_s"] / 3600, self._hours()
        stages = {stage: self.sums[stage] for stage in STAGES}
        whole = sum(stages.values()) or 1.0
        said = {
            "parts": {"made": self.n_made, "of": self.n_parts},  # by the process that ended the job
            "audio_h": audio_h,
            "hours": hours,
            "cores": self.cores,
            "actors": self.actors,
            "audio_h_per_hour": audio_h / hours,
            "audio_h_per_core_hour": audio_h / hours / self.cores,
            **self._of_gpus(audio_h / hours),
            "stages": {stage: seconds / whole for stage, seconds in stages.items()},
            "bottleneck": max(stages, key=lambda stage: stages[stage]),
            "probe": dict(tried) if tried else None,  # seconds of each stage for an hour of sound
            "cost": self._cost(prices, audio_h, hours) if prices != Prices() else None,
        }
        return {name: _short(value) for name, value in said.items()}

    def _of_gpus(self, rate: float) -> dict[str, Any]:
        per = rate / self.gpus if self.gpus else None
        return {"gpus": self.gpus, "audio_h_per_gpu_hour": per, "batch_windows": self.windows or None}

    def _cost(self, prices: Prices, audio_h: float, hours: float) -> dict[str, float]:
        requests = self.sums["gets"] * prices.gets_1000 / 1000 + self.n_made * prices.puts_1000 / 1000
        cost = (self.cores * prices.core_hour + self.gpus * prices.gpu_hour) * hours + requests
        return {"job": cost, "audio_hours_1000": 1000 * cost / audio_h if audio_h else 0.0}

    def _hours(self) -> float:
        return max(time.perf_counter() - self._began, 1e-3) / 3600


def told(report: Mapping[str, Any]) -> str:
    """The report as a line."""
    share, cost = report["stages"][report["bottleneck"]], report["cost"]
    money = f"; it cost {cost['job']:.4g}, {cost['audio_hours_1000']:.4g} for 1,000 hours of sound" if cost else ""
    gpus = f", {report['audio_h_per_gpu_hour']:.0f} a GPU hour on {report['gpus']} GPUs" if report["gpus"] else ""
    return (
        f"{report['audio_h_per_core_hour']:.0f} hours of sound a core hour on {report['cores']} cores{gpus}; "
        f"{share:.0%} of the time went into {report['bottleneck']}{money}"
    )


def tried_units(work: WorkList) -> list[dict[str, Any]]:
    """Some units from all over the work list, cut short; none where there is little to do."""
    step, found = max(1, work.n_parts // TRIED), list[dict[str, Any]]()
    for part in range(step // 2, work.n_parts, step):
        unit = next((unit for unit in work.part(part) if not unit["status"]), None)
        if unit:
            stop_s = unit["start_s"] + TRIED_S
            found.append(unit | {"stop_s": stop_s if unit["stop_s"] is None else min(unit["stop_s"], stop_s)})
    return found[:TRIED]


def actors(tried: Mapping[str, float] | None, slots: int) -> int:
    """How many keep `slots` cores busy: one a core, unless it waits longer for a store than it works; while it waits,
    another may have its core."""
    waits, busy = (sum(tried[name] for name in names) for names in (STAGES[:1], STAGES[1:4])) if tried else (0.0, 0.0)
    if not busy:
        return slots
    return min(max(slots, int(SLACK * slots * waits / busy)), slots + slots // 2)


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
