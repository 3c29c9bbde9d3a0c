"""The collapse guard: training that has died says so within two epochs instead of running to its end.

A collapsed network gives one answer to everything. So does a healthy one in its first epochs, and one whose validation
jumps while batch norm settles; it takes one answer in two validations running, and a sign that nothing is learnt, to
tell them apart. Figures of what was seen of both are in docs/LOG.md.

Shapes: C clips, K labels.
"""

import numpy as np
from numpy.typing import NDArray

from instrunet.errors import JobError
from instrunet.losses import FocalSpec
from instrunet.training.optim import TrainSpec
from instrunet.training.validate import Heard

# exp(entropy) of the histogram of answers: 1 is one answer to all; 1.25 is one for 94 % and another for the rest.
ONE_ANSWER = 1.25
# The truth must hold more than this many: where 80 % of all clips are of one class, one answer is no wonder.
TRUE_ANSWERS = 1.65
STILL_LOSS, RISING_LOSS = 0.995, 1.05  # of the least training loss before; a slow start fell by 0.6 %
STILL_GRADIENT = 0.001  # of the largest gradient before; the first steps of a healthy run may be 100 times the later
# Of the most that answers can differ from sound to sound. Slow starts that went well had 0.0003 to 0.003 after an
# epoch, which grew to 3.3 times as much and more within the next; in networks that died it fell by a quarter or more.
LITTLE_SPREAD, NO_SPREAD, WAKING = 0.05, 0.001, 1.5
# Steps after which batch norm's running means, a tenth of each batch, hang on the data and no more on their start: a
# network that learnt from 16 clips, one step an epoch, answered alike in its first eight validations.
SETTLED = 24


class CollapseError(Exception):
    """What was seen; the trainer goes back, or fails the job with it."""

    def failure(self, spec: TrainSpec, recoveries: int) -> JobError:
        """What to say of it when nothing is tried again."""
        focal = isinstance(spec.loss, FocalSpec)
        plain = ", leave out train.loss (focal does this where the rate or the decay is high)" if focal else ""
        again = "" if spec.on_collapse == "recover" else ", or let train.on_collapse=recover go back and slow down"
        return JobError(
            f"{self}{_after(recoveries)}: lower train.learning_rate (now {spec.learning_rate:g}), model.dropout or "
            f"train.weight_decay, set train.clip_norm=1{plain}{again}"
        )


class NotFiniteError(CollapseError):
    """Loss or answers are no numbers."""

    def failure(self, spec: TrainSpec, recoveries: int) -> JobError:
        return JobError(
            f"{self}{_after(recoveries)}: lower train.learning_rate (now {spec.learning_rate:g}) "
            "or set train.precision=fp32"
        )


def figures(heard: Heard) -> dict[str, float]:
    """What the guard remembers of a validation."""
    return {"answers": _answers(heard.decided), "spread": _spread(heard.scores)}


def one_answer(metrics: dict[str, float]) -> bool:
    return metrics["answers"] <= ONE_ANSWER


def where(metrics: dict[str, float]) -> str:
    """When a validation was, for people."""
    epoch = metrics["epoch"]
    return f"epoch {epoch:.0f}" if epoch.is_integer() else f"step {metrics['step']:.0f}"


def check(history: list[dict[str, float]], heard: Heard, steps: int = SETTLED) -> None:
    """Raise CollapseError if the last epoch of `history`, whose answers `heard` holds, and the one before were dead.

    `steps` were taken up to here; too few of them say nothing.
    """
    if steps < SETTLED:
        return
    since = [m for m in history if m.get("recoveries") == history[-1].get("recoveries")]
    # Of validations within an epoch the last one and those an epoch before it are compared: a few steps teach little
    before = [m for m in since if m["epoch"] <= history[-1]["epoch"] - 1]
    running = [m for m in since if not before or m["epoch"] >= before[-1]["epoch"]]
    if not before or not all(map(one_answer, running)) or _answers(heard.truth) < TRUE_ANSWERS:
        return
    if signs := _signs([*before, since[-1]]):
        raise CollapseError(f"training collapsed: {_seen(since[-1], heard)}, and {' and '.join(signs)}")


def _signs(history: list[dict[str, float]]) -> list[str]:
    """Why nothing is learnt any more."""
    *before, last = history
    loss, gradient = min(m["train_loss"] for m in before), max(m["gradient_norm"] for m in before)
    wakes = last["spread"] > WAKING * before[-1]["spread"]
    stands = last["train_loss"] > STILL_LOSS * loss and last["spread"] < LITTLE_SPREAD and not wakes
    signs = []
    if stands or last["train_loss"] > RISING_LOSS * loss:
        signs.append(f"the training loss is {last['train_loss']:.4g} (least before: {loss:.4g})")
    if last["spread"] < LITTLE_SPREAD if signs else last["spread"] < NO_SPREAD:
        signs.append(f"the answers hardly hang on the sound (spread {last['spread']:.2g} of 1)")
    if last["gradient_norm"] < STILL_GRADIENT * gradient:
        signs.append(f"the gradient fell to {last['gradient_norm']:.2g} (largest before: {gradient:.2g})")
    return signs


def _seen(last: dict[str, float], heard: Heard) -> str:
    rows, counts = np.unique(heard.decided, axis=0, return_counts=True)
    row = rows[counts.argmax()]
    names = [label for label, is_so in zip(heard.labels, row, strict=True) if is_so]
    what = "every label" if row.all() else " and ".join(names[:3]) or "no label"
    true = (heard.truth == row).all(1).mean()
    return (
        f"after {where(last)}, as after the validation before, {counts.max() / counts.sum():.0%} of the "
        f"clips that it was tried on are answered with {what} ({true:.0%} are so)"
    )


def _after(recoveries: int) -> str:
    return f" (after {recoveries} recoveries)" if recoveries else ""


def _answers(decided: NDArray[np.bool_]) -> float:
    """exp(entropy) of the histogram of the rows [C, K]: how many different answers there are, as it were."""
    _, counts = np.unique(decided, axis=0, return_counts=True)
    share = counts / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def _spread(scores: NDArray[np.float64]) -> float:
    """How far scores [C, K] differ from clip to clip: 0 not at all, 1 as far as their means allow."""
    mean = scores.mean(0)
    most = 2 * (mean * (1 - mean)).sum()
    return float(np.abs(scores - mean).mean(0).sum() / most) if most > 1e-9 else 0.0
