"""A Ray of our own on a machine that is too busy to start it within the 30 s that Ray waits."""

from typing import Any

import pytest
import ray

from instrunet.errors import JobError
from instrunet.experiment import ClusterSpec
from pipelines import cluster

LATE = Exception("The current node timed out during startup. This could happen because some of the raylet failed")


@pytest.mark.parametrize("late", [0, 2, 3])
def test_a_late_start_is_tried_again(late: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a late node does cannot be had at will, so `ray.init` is one of ours here."""
    asked: list[Any] = []

    def start(**settings: Any) -> None:
        asked.append(settings["address"])
        if len(asked) <= late:
            raise LATE

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", start)
    if late < cluster.STARTS:
        cluster._init(ClusterSpec(), verbose=False)
    else:
        with pytest.raises(JobError, match="3 times within 30 s; the machine has too much to do"):
            cluster._init(ClusterSpec(), verbose=False)
    assert asked == ["local"] * min(late + 1, cluster.STARTS)


def test_what_a_node_says_of_itself_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    ours = "Task submit failed. It will be retried. Error: The actor is dead because it was killed by `ray.kill`."
    many = "WARNING: 8 PYTHON worker processes have been started"
    cluster._told({"lines": ["disk\n is full", many, ours]}, False)
    assert tuple(capsys.readouterr()) == ("", "Ray: disk is full\n")
