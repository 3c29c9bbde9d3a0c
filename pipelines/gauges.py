"""What Prometheus sees of a tagging at work, at the port where Ray's own metrics are.

ray_instrunet_{files,bad,audio_s}_total   of the parts that are made
ray_instrunet_parts_left                  the queue
"""

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

COUNTED = {
    "files": "files begun",
    "bad": "files of which nothing could be tagged",
    "audio_s": "seconds of sound tagged",
}


class Gauges:
    def __init__(self, left: int) -> None:
        self.counters = {name: Counter(f"instrunet_{name}", said) for name, said in COUNTED.items()}
        self.queue = Gauge("instrunet_parts_left", "parts of an archive that are still to be made")
        self.left = left
        self.queue.set(left)

    def add(self, made: Mapping[str, Any]) -> None:
        """With the summary of one more part."""
        self.left -= 1
        self.queue.set(self.left)
        for name, counter in self.counters.items():
            if made[name]:
                counter.inc(made[name])
