"""The bundle: a model that travels whole. `bundle.json` says everything, `weights.safetensors` holds the numbers.

Shapes: W windows, K labels.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import soxr
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from instrunet.audio import io
from instrunet.bundle_spec import BundleSpec
from instrunet.config import canonical_json
from instrunet.data.parts import read_json
from instrunet.decisions import Decisions
from instrunet.errors import BundleError, ConfigError, DataError
from instrunet.features.featurizer import Featurizer, Windows
from instrunet.features.shards import alike
from instrunet.models import Network
from instrunet.rule import Rule, Scores

SPEC_FILE, WEIGHTS_FILE = "bundle.json", "weights.safetensors"


@dataclass(frozen=True)
class Heard:
    """The windows of one sound and their scores [W, K]; no `status`: all is well with it."""

    status: str
    reason: str
    flags: list[str]
    duration_s: float
    window_start_s: list[float]
    scores: NDArray[np.float32]
    measures: list[float]
    embeddings: NDArray[np.float16] | None = None  # [W, E], where they were asked for


@dataclass(frozen=True)
class Prediction:
    """What a model says of one sound: `labels` is its decision, `scores` the mean over the windows, calibrated.

    `status` is `tagged`, `damaged` (decided on what was kept), `silent` or `too_short` (no decision). A sound of which
    it is not sure enough has the flag `no_answer` and no labels.
    """

    status: str
    labels: list[str]
    scores: dict[str, float]
    window_start_s: list[float]
    window_scores: list[list[float]]
    duration_s: float
    flags: list[str]
    error: str
    drift: float | None = None  # see `Profile.drift`

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Bundle:
    """A function from a waveform to decisions."""

    def __init__(self, spec: BundleSpec, network: Network) -> None:
        self.spec, self.rule = spec, Rule(spec)
        self.network = network.eval()
        self.featurizer = Featurizer(spec.front)

    @classmethod
    def load(cls, path: Path) -> "Bundle":
        spec = read_spec(path)
        network = Network(spec.model, spec.front, spec.statistics, len(spec.labels))
        weights = _read_weights(path / WEIGHTS_FILE, spec.weights_sha256)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise BundleError(f"{path}: the weights are not those of its network: {_first_line(error)}") from None
        return cls(spec, network)

    def save(self, path: Path) -> Path:
        """Write into an empty folder; the caller publishes the folder whole."""
        return save(self.spec, self.network, path)

    @property
    def fingerprint(self) -> str:
        return self.spec.fingerprint()

    def __call__(self, sound: Path | str | NDArray[np.float32], sample_rate: int | None = None) -> Prediction:
        """Decide on a file, or on samples [T] or [T, C] at `sample_rate`."""
        heard = self.hear(self._read(sound, sample_rate))
        mean = self.of_clip(heard.scores) if len(heard.scores) else None
        return Prediction(
            heard.status or "tagged",
            self.decide(mean) if mean is not None else [],
            {label: float(mean[k]) for k, label in enumerate(self.spec.labels)} if mean is not None else {},
            heard.window_start_s,
            heard.scores.tolist(),
            heard.duration_s,
            heard.flags if mean is None else self.flagged(heard.flags, mean),
            heard.reason,
            self.drift(heard.measures),
        )

    def hear(self, sound: io.Sound, start_s: float = 0.0, embed: bool = False) -> Heard:
        """Score the windows of a sound that begins at `start_s` of its file; of a damaged one, what was kept."""
        rate = self.spec.front.sample_rate
        status, reason = io.verdict(sound, rate)
        kept = io.verdict(io.Sound(sound.wave), rate)[0] == ""
        unheard = not kept or (self.spec.front.long == "first" and start_s > 0)
        seen = self.featurizer.fast(sound.wave[:0] if unheard else sound.wave)
        facts = (status, reason, sound.flags, len(sound.wave) / rate)
        kept_numbers = np.zeros((len(seen.start_s), self.network.body.width), np.float16) if embed else None
        return Heard(*facts, seen.start_s, self.scores(seen, embeddings=kept_numbers), seen.measures, kept_numbers)

    def scores(self, windows: Windows, embeddings: NDArray[np.float16] | None = None) -> NDArray[np.float32]:
        """Probabilities [W, K]: softmax or sigmoid of the logits over the temperature."""
        features = {name: torch.from_numpy(values) for name, values in windows.features.items()}
        return self.activated(self.logits(features, embeddings=embeddings))

    def predict(
        self, features: Mapping[str, Tensor], batch_size: int = 32, frames: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """{name: [W, F, L]} to probabilities [W, K], in batches; `frames` [W] of L are a window's own, if not all."""
        return self.activated(self.logits(features, batch_size, frames))

    @torch.inference_mode()
    def logits(
        self,
        features: Mapping[str, Tensor],
        batch_size: int = 32,
        frames: NDArray[np.int64] | None = None,
        embeddings: NDArray[np.float16] | None = None,
    ) -> NDArray[np.float32]:
        """As the network gives them, before the temperature: what is calibrated. `embeddings` [W, E] are filled in."""
        n = len(next(iter(features.values())))
        out = np.zeros((n, len(self.spec.labels)), np.float32)
        for rows in alike(n, frames, batch_size):
            end = None if frames is None else int(frames[rows[0]])
            batch = {name: values[rows][..., :end].float() for name, values in features.items()}
            embedded = self.network.embed(batch)
            out[rows] = self.network.body.head(embedded).float().numpy()
            if embeddings is not None:
                embeddings[rows] = embedded.numpy()
        return out

    def activated(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled = torch.from_numpy(logits) / self.spec.temperature
        found: NDArray[np.float32] = (scaled.softmax(1) if self.spec.kind == "single" else scaled.sigmoid()).numpy()
        return found

    def of_clip(self, windows: Scores) -> NDArray[np.float32]:
        return self.rule.of_clip(windows)

    def calibrated(self, mean: Scores) -> Scores:
        return self.rule.calibrated(mean)

    def answers(self, scores: Scores) -> NDArray[np.bool_]:
        return self.rule.answers(scores)

    def decide(self, scores: Scores) -> list[str]:
        return self.rule.decide(scores)

    def flagged(self, flags: Sequence[str], scores: Scores) -> list[str]:
        return self.rule.flagged(flags, scores)

    def drift(self, measures: Sequence[float]) -> float | None:
        return self.rule.drift(measures)

    @property
    def decisions(self) -> Decisions:
        return self.rule.decisions

    @property
    def thresholds(self) -> NDArray[np.float32]:
        return self.rule.thresholds

    def _read(self, sound: Path | str | NDArray[np.float32], sample_rate: int | None) -> io.Sound:
        rate = self.spec.front.sample_rate
        if isinstance(sound, Path | str):
            return io.read(Path(sound), rate)
        if sample_rate is None:
            raise ConfigError("an array needs its sample_rate: bundle(samples, sample_rate=44100)")
        wave = np.asarray(sound, np.float32)
        if wave.ndim not in (1, 2) or (wave.ndim == 2 and wave.shape[1] > max(wave.shape[0], 1)):
            raise DataError(f"expected samples as [T] or [T, C], got an array of shape {wave.shape}; transpose [C, T]")
        if not np.isfinite(wave).all():
            raise DataError(f"expected finite samples, got {np.count_nonzero(~np.isfinite(wave))} that are not")
        mono = wave if wave.ndim == 1 else wave.mean(1)
        return io.Sound(np.ascontiguousarray(mono if sample_rate == rate else soxr.resample(mono, sample_rate, rate)))


def save(spec: BundleSpec, network: Network, path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    weights = safetensors.torch.save({name: value.contiguous() for name, value in network.state_dict().items()})
    (path / WEIGHTS_FILE).write_bytes(weights)
    sealed = spec.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    (path / SPEC_FILE).write_text(canonical_json(sealed.model_dump(mode="json")) + "\n", encoding="utf-8")
    return path


def read_spec(path: Path) -> BundleSpec:
    if not (path / SPEC_FILE).is_file():
        raise BundleError(
            f"expected a bundle (a folder with {SPEC_FILE}) at {path}, found none; jobs/train.py makes one"
        )
    try:
        tree = read_json(path / SPEC_FILE)
        if tree.get("format") != 1:
            raise BundleError(
                f"{path} has bundle format {tree.get('format')!r}; this version reads 1: upgrade instrunet"
            )
        return BundleSpec.parse(tree, str(path / SPEC_FILE))
    except (DataError, ConfigError) as error:
        raise BundleError(str(error)) from None


def _read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}; the bundle is not whole") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BundleError(f"{path} is not the file that bundle.json was sealed with; copy the bundle again")
    try:
        weights: dict[str, Tensor] = safetensors.torch.load(content)
    except SafetensorError as error:
        raise BundleError(f"{path} is not a safetensors file: {error}") from None
    return weights


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
