"""Told to go: by the driver or by a node that is drained, the first worker keeps the step it is at, once."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from instrunet.training.state import STATE_FILE
from pipelines import leaving


class Mailbox:
    """The driver's, without Ray: `remote` answers at once."""

    def __init__(self) -> None:
        self.is_asked = False
        self.said: list[str] = []
        self.asked = SimpleNamespace(remote=lambda: self.is_asked)
        self.reply = SimpleNamespace(remote=self.said.append)


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Mailbox:
    monkeypatch.setattr(leaving.ray, "get", lambda value: value)
    monkeypatch.setattr(leaving, "ASK_S", 0.01)
    monkeypatch.setattr(leaving, "_preemption", lambda: None)
    return Mailbox()


def save(folder: Path) -> None:
    (folder / STATE_FILE).write_text("{}", encoding="utf-8")


def steps(watch: leaving.Watch, first: int, mailbox: Mailbox, n_said: int) -> None:
    """Step until so much was said."""
    for step in range(first, first + 500):
        watch(step, save)
        if len(mailbox.said) == n_said:
            return
        time.sleep(0.01)
    raise AssertionError(mailbox.said)


def kept(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir()) if home.exists() else []


def test_asked_by_the_driver_or_drained_it_keeps_its_step_once(
    tmp_path: Path, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = SimpleNamespace(preemption_info=None)
    monkeypatch.setattr(leaving, "_preemption", lambda: context)
    watch = leaving.Watch(mailbox, tmp_path / "checkpoints")
    for step in range(20):
        watch(step, save)
        time.sleep(0.01)
    assert kept(tmp_path / "checkpoints") == [] and mailbox.said == []
    context.preemption_info = object()
    steps(watch, 100, mailbox, 1)
    mailbox.is_asked = True
    steps(watch, 1000, mailbox, 2)
    time.sleep(0.1)
    watch(5000, save)
    assert len(mailbox.said) == 2
    assert [name[-7:] for name in kept(tmp_path / "checkpoints")] == ["-before", "-before"]
    said = [
        f"told to stop: a checkpoint after step {int(n.split('-')[1])} is kept" for n in kept(tmp_path / "checkpoints")
    ]
    assert mailbox.said == said


def test_a_checkpoint_that_cannot_be_written_is_told_and_training_goes_on(tmp_path: Path, mailbox: Mailbox) -> None:
    mailbox.is_asked = True
    (tmp_path / "checkpoints").write_text("no folder", encoding="utf-8")
    steps(leaving.Watch(mailbox, tmp_path / "checkpoints"), 7, mailbox, 1)
    assert "told to stop: the checkpoint after step" in mailbox.said[0] and "from the start" in mailbox.said[0]


def test_ray_still_notes_where_we_look_that_a_node_is_drained() -> None:
    from ray.train.v2._internal.execution.context import TrainContext
    from ray.train.v2._internal.execution.preemption import PreemptionContext

    fields: dict[str, Any] = TrainContext.__dataclass_fields__
    assert fields["preemption_context"].type is PreemptionContext
    assert PreemptionContext().preemption_info is None


@pytest.mark.parametrize("passed_on", [None, KeyboardInterrupt, SystemExit(1)])
def test_sigterm_is_answered_with_a_checkpoint(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, passed_on: type[BaseException] | BaseException | None
) -> None:
    """Whatever Ray's core makes of what the handler raises."""
    mailbox.ask = SimpleNamespace(remote=lambda: None)  # type: ignore[attr-defined]
    answers = iter([None, None, "a checkpoint is kept"])
    mailbox.answer = SimpleNamespace(remote=lambda: next(answers))  # type: ignore[attr-defined]
    before, said = signal.getsignal(signal.SIGTERM), list[str]()
    with pytest.raises(SystemExit) as end, leaving.keeping(mailbox, said.append):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except SystemExit:
            if passed_on:
                raise passed_on from None
            raise
    assert end.value.code == 143 and said == ["a checkpoint is kept"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_is_no_sigterm_is_none_of_its_business(mailbox: Mailbox) -> None:
    with pytest.raises(KeyboardInterrupt), leaving.keeping(mailbox, mailbox.said.append):
        raise KeyboardInterrupt
    assert mailbox.said == []
