"""The bundle: a model that travels whole. `bundle.json` says everything, `weights.safetensors` holds the numbers.

Shapes: W windows, K labels.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from instrunet import engines, runtime
from instrunet.audio import io
from instrunet.bundle_files import SPEC_FILE, WEIGHTS_FILE, first_line, read_int8, read_spec, read_weights, save
from instrunet.bundle_spec import BundleSpec, Precision
from instrunet.data import places
from instrunet.decisions import Decisions
from instrunet.errors import BundleError, ConfigError, DataError
from instrunet.features.featurizer import Featurizer, Windows, alike
from instrunet.hearing import Heard, Seen, looked
from instrunet.models import Network
from instrunet.prediction import Prediction
from instrunet.rule import Rule, Scores

__all__ = ["SPEC_FILE", "WEIGHTS_FILE", "Bundle", "Heard", "Prediction", "read_spec", "save"]

Given = Path | str | NDArray[np.float32]  # a file or its URL, or samples [T] or [T, C]

CALL = 5  # windows of a sound that a core takes at once: of ten, what lies between two layers misses its cache


class Bundle:
    """A function from a waveform to decisions."""

    runs_on = "torch fp32"
    _run: engines.Run | None = None  # of that runtime

    def __init__(self, spec: BundleSpec, network: Network, int8: bytes = b"") -> None:
        self.spec, self.rule = spec, Rule(spec)
        self.int8 = int8  # the network in eight bits, as ONNX
        self.network = network.eval()
        self.featurizer = Featurizer(spec.front)

    @classmethod
    def load(cls, path: Path) -> "Bundle":
        spec = read_spec(path)
        network = Network(spec.model, spec.front, spec.statistics, len(spec.labels))
        weights = read_weights(path / WEIGHTS_FILE, spec.weights_sha256)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise BundleError(f"{path}: the weights are not those of its network: {first_line(error)}") from None
        return cls(spec, network, read_int8(path, spec.int8_sha256))

    def save(self, path: Path) -> Path:
        """Write into an empty folder; the caller publishes the folder whole."""
        return save(self.spec, self.network, path, self.int8)

    def on(self, where: str = "auto", precision: Precision = "fp32") -> "Bundle":
        """The same function on another runtime, see runtime.py: `torch`, `onnxruntime`, `openvino`.

        `auto` takes the fastest here, of those that give the same decisions, in whatever precision does.
        """
        if where == "auto":
            where, precision = runtime.fastest(self)
        moved = Bundle(self.spec, self.network, self.int8)
        moved._run, moved.runs_on = runtime.run_on(self, where, precision), f"{where} {precision}"
        return moved

    @functools.cached_property
    def fingerprint(self) -> str:
        return self.spec.fingerprint()

    def __call__(self, sound: Given, sample_rate: int | None = None) -> Prediction:
        """Decide on a file, or on samples [T] or [T, C] at `sample_rate`; a file that is no sound is a DecodeError."""
        return self.decided(self.read(sound, sample_rate))

    def each(self, sounds: Iterable[Given], sample_rate: int | None = None, together: int = 16) -> Iterator[Prediction]:
        """Many sounds, up to so many `together` through the network; what cannot be decoded is told by its status."""
        waiting: list[Seen[Windows] | Prediction] = []
        try:
            for sound in sounds:
                waiting.append(self._seen(sound, sample_rate))
                n_windows = sum(len(one.windows.start_s) for one in waiting if isinstance(one, Seen))
                if len(waiting) == together or n_windows >= 16 * together:  # of a long one are many
                    yield from self._told(waiting)
                    waiting = []
        except Exception:
            yield from self._told(waiting)  # what came before it is said
            raise
        yield from self._told(waiting)

    def _seen(self, sound: Given, sample_rate: int | None) -> Seen[Windows] | Prediction:
        try:
            return self.look(self.read(sound, sample_rate))
        except io.DecodeError as error:
            return Prediction(error.status, [], {}, [], [], 0.0, [], str(error))

    def _told(self, waiting: Sequence[Seen[Windows] | Prediction]) -> list[Prediction]:
        heard = iter(self._judge_together([one for one in waiting if isinstance(one, Seen)]))
        return [one if isinstance(one, Prediction) else self.told(next(heard)) for one in waiting]

    def pieces(self, path: Path | str, piece_s: float = 60.0) -> Iterator[Prediction]:
        """A long file piece by piece, never held whole; windows and `start_s` count from its beginning."""
        if not piece_s > 0:
            raise ConfigError(f"expected a length above 0 s for each piece, got piece_s={piece_s:g}")
        path, rate = places.located(path), self.spec.front.sample_rate
        with places.sound(path) as local:
            duration_s = io.probe(local).duration_s
            for k in range(max(1, math.ceil(duration_s / piece_s))):
                start_s, stop_s = k * piece_s, (k + 1) * piece_s
                found = self.decided(io.read(local, rate, start_s, stop_s if stop_s < duration_s else None), start_s)
                begins = [start_s + at for at in found.window_start_s]
                yield replace(found, window_start_s=begins, start_s=start_s)

    def decided(self, sound: io.Sound, start_s: float = 0.0) -> Prediction:
        """As `hear`, with the decision."""
        return self.told(self.hear(sound, start_s))

    def told(self, heard: Heard) -> Prediction:
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
        return self.judge(self.look(sound, start_s), embed)

    def hear_together(self, sounds: Iterable[io.Sound]) -> list[Heard]:
        """As `hear` of each, their windows through the network in shared batches."""
        return self._judge_together([self.look(sound) for sound in sounds])

    def _judge_together(self, seen: Sequence[Seen[Windows]]) -> list[Heard]:
        lengths = [tuple(values.shape[1:] for values in one.windows.features.values()) for one in seen]
        scores: dict[int, NDArray[np.float32]] = {}
        for length in set(lengths):  # sounds shorter than a window may have one of their own
            some = [k for k, own in enumerate(lengths) if own == length]
            each = [seen[k].windows.features for k in some]
            features = {name: torch.from_numpy(np.concatenate([of[name] for of in each])) for name in each[0]}
            ends = np.cumsum([len(seen[k].windows.start_s) for k in some])[:-1]
            scores |= zip(some, np.split(self.predict(features), ends), strict=True)
        return [Heard.of(one, scores[k]) for k, one in enumerate(seen)]

    def look(self, sound: io.Sound, start_s: float = 0.0) -> Seen[Windows]:
        """The first half of `hear`: what the network will see."""
        return looked(sound, self.spec.front, start_s, self.featurizer.fast)

    def judge(self, seen: Seen[Windows], embed: bool = False) -> Heard:
        """The other half: what the network says of it."""
        windows = seen.windows
        kept = np.zeros((len(windows.start_s), self.network.body.width), np.float16) if embed else None
        return Heard.of(seen, self.scores(windows, embeddings=kept), kept)

    def scores(self, windows: Windows, embeddings: NDArray[np.float16] | None = None) -> NDArray[np.float32]:
        """Probabilities [W, K]: softmax or sigmoid of the logits over the temperature."""
        features = {name: torch.from_numpy(values) for name, values in windows.features.items()}
        return self.activated(self.logits(features, CALL, embeddings=embeddings))

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
        run = self._run or engines.by_torch(self.network)
        n = len(next(iter(features.values())))
        out = np.zeros((n, len(self.spec.labels)), np.float32)
        for rows in alike(n, frames, batch_size):
            end = None if frames is None else int(frames[rows[0]])
            some = slice(int(rows[0]), int(rows[-1]) + 1) if frames is None else rows  # a slice is no copy
            batch = {name: values[some][..., :end].float() for name, values in features.items()}
            if embeddings is None:
                out[rows] = run(batch)
                continue
            embedded = self.network.embed(batch)  # other runtimes give logits alone
            out[rows] = self.network.body.head(embedded).float().numpy()
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

    def read(self, sound: Given, sample_rate: int | None = None) -> io.Sound:
        """Mono at the rate of the front end."""
        rate = self.spec.front.sample_rate
        if isinstance(sound, Path | str):
            with places.sound(sound) as local:
                return io.read(local, rate)
        if sample_rate is None:
            raise ConfigError("an array needs its sample_rate: bundle(samples, sample_rate=44100)")
        wave = np.asarray(sound, np.float32)
        if wave.ndim not in (1, 2) or (wave.ndim == 2 and wave.shape[1] > max(wave.shape[0], 1)):
            raise DataError(f"expected samples as [T] or [T, C], got an array of shape {wave.shape}; transpose [C, T]")
        if not np.isfinite(wave).all():
            raise DataError(f"expected finite samples, got {np.count_nonzero(~np.isfinite(wave))} that are not")
        mono = wave if wave.ndim == 1 else wave.mean(1)
        return io.Sound(np.ascontiguousarray(mono if sample_rate == rate else soxr.resample(mono, sample_rate, rate)))
