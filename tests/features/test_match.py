"""Which parameters made these spectrograms? Those that librosa was given come out first."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from instrunet.data.synth import SynthSpec, render_clip
from instrunet.errors import DataError
from instrunet.features.logmel import LogMel, LogMelSpec
from instrunet.features.match import Match, match
from pipelines import predict

Made = NDArray[np.float32]
RATE = 22_050


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wave = render_clip(SynthSpec(sample_rate=RATE, clip_s=1.5), "pia", 1, 1).mean(0)
    path = tmp_path_factory.mktemp("match") / "piano.wav"
    sf.write(path, wave, RATE, subtype="FLOAT")
    return path


def saved(values: Made, folder: Path) -> Path:
    np.save(folder / "features.npy", values)
    return folder / "features.npy"


def db(mel: Made) -> Made:
    return librosa.power_to_db(mel, ref=np.max)


def to_unit(mel: Made) -> Made:
    values = db(mel)
    return (values - values.min()) / np.ptp(values)


def standardised(mel: Made) -> Made:
    values = np.log(mel + 1e-6)
    return (values - values.mean()) / values.std()


# librosa's arguments, what follows, and what is to be found beside the arguments
CASES: dict[str, tuple[dict[str, Any], Callable[[Made], Made], dict[str, Any]]] = {
    "librosa's defaults": ({}, db, {"log": "dB, ref max, top 80", "n_mels": 128, "n_fft": 2048, "scaled": "no"}),
    "raw energies": ({"n_mels": 40}, lambda mel: mel, {"log": "none", "scaled": "no"}),
    "ref 1, no top": (
        {"n_mels": 64, "fmin": 50, "fmax": 8000},
        lambda mel: librosa.power_to_db(mel, top_db=None),
        {"log": "dB, ref 1"},
    ),
    "speech": (
        {
            "sr": 16_000,
            "n_fft": 1024,
            "hop_length": 256,
            "n_mels": 80,
            "fmax": 8000,
            "htk": True,
            "norm": None,
            "power": 1,
        },
        lambda mel: np.log10(np.maximum(mel, 1e-5)),
        {"mel_scale": "htk", "norm": "none", "scaled": "no"},
    ),
    "half the rate, magnitudes": (
        {"sr": 11_025, "n_fft": 512, "hop_length": 128, "n_mels": 48, "fmin": 20, "power": 1},
        lambda mel: np.log(mel + 1e-6),
        {"log": "ln, x + 1e-06"},
    ),
    "guitar, 0 to 1": (
        {"hop_length": 128, "n_mels": 128, "fmin": 80, "fmax": 8000},
        to_unit,
        {"log": "dB, ref max, top 80", "scaled": "to 0..1"},
    ),
    "standardised": (
        {"n_fft": 1024, "hop_length": 512, "n_mels": 64},
        standardised,
        {"scaled": "to mean 0, deviation 1"},
    ),
}
NAMES = {"sr": "sample_rate", "fmin": "fmin_hz", "fmax": "fmax_hz"}


@pytest.mark.parametrize("case", CASES)
def test_what_librosa_was_given_is_found(case: str, audio: Path, tmp_path: Path) -> None:
    arguments, after, also = CASES[case]
    given = {"sr": RATE, "hop_length": 512} | arguments
    wave = librosa.resample(sf.read(audio, dtype="float32")[0], orig_sr=RATE, target_sr=given["sr"])
    best, *others = match(saved(after(librosa.feature.melspectrogram(y=wave, **given)), tmp_path), audio)
    wanted = {NAMES.get(k, k): v for k, v in given.items() if k not in ("htk", "norm")} | also
    assert {name: asdict(best)[name] for name in wanted} == wanted
    assert best.error < 1e-4 and len(others) == 4
    assert [m.error for m in others if m.error > 1e-5] == sorted(m.error for m in others if m.error > 1e-5)


def test_our_own_features_are_found(audio: Path, tmp_path: Path) -> None:
    spec = LogMelSpec(n_mels=64)
    wave, _ = sf.read(audio, dtype="float32")
    best = match(saved(LogMel(spec).fast(wave)[None], tmp_path), audio)[0]
    want = Match(RATE, 2048, 512, 64, 30.0, 11_025.0, "slaney", "slaney", 2, "none", "ln, x + 1e-05", "no", best.error)
    assert best == want and best.error < 1e-4


def test_a_level_is_found(audio: Path, tmp_path: Path) -> None:
    wave, _ = sf.read(audio, dtype="float32")
    loud = wave / np.abs(wave).max()
    best = match(saved(LogMel(LogMelSpec(n_mels=32)).fast(loud), tmp_path), audio)[0]
    assert (best.level, best.scaled, best.log) == ("peak", "no", "ln, x + 1e-05")


def test_what_does_not_fit_is_not_claimed(audio: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((64, 65))
    assert match(saved(noise, tmp_path), audio)[0].error > 0.9


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((64, 65)), "expected finite values that differ"),
        (np.full((64, 65), np.nan), "expected finite values that differ"),
        (np.arange(65.0), r"expected one spectrogram \(bands, frames\) in .*, got shape \(65,\)"),
        (np.random.default_rng(0).random((64, 7)), r"has the shape \(64, 7\), taken as \(bands, frames\): transpose"),
        (np.array([{"a": 1}] * 4, dtype=object), "expected an array of numbers .*allow_pickle=False"),
    ],
)
def test_what_is_no_spectrogram_of_it_is_refused(values: Made, said: str, audio: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        match(saved(values, tmp_path), audio)


def test_the_job_prints_five(audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wave, _ = sf.read(audio, dtype="float32")
    features = saved(LogMel(LogMelSpec(n_mels=32)).fast(wave), tmp_path)
    for as_json in (True, False):
        predict.run(argparse.Namespace(bundle=None, files=[], json=as_json, match=[features, audio], verbose=False))
    told = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in told[:5]]
    assert rows[0]["hop_length"] == 512 and rows[0]["fmin_hz"] == 30.0 and "error" in rows[0]
    assert "22050 Hz" in "".join(told[5:]) and len([line for line in told[5:] if line.startswith("│")]) >= 5
    with pytest.raises(DataError, match="gone.wav"):
        predict.run(
            argparse.Namespace(bundle=None, files=[], json=True, match=[features, tmp_path / "gone.wav"], verbose=False)
        )
