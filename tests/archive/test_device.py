"""Units together on a device: the rows of one by one, decoded by several at a time while others are scored.

The device is the CPU here, which the same code takes for one. Where tensors lie is held on a GPU of torch's that has
shapes and no numbers.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archives import FRONT, sound, tiny_bundle, work_rows, write, write_archive
from conftest import ROOT
from torch._subclasses.fake_tensor import FakeTensorMode

from instrunet.archive import device, tagger
from instrunet.archive.device import Device
from instrunet.archive.speed import Clock
from instrunet.archive.units import UnitSpec
from instrunet.audio import io
from instrunet.audio.ahead import Decoders
from instrunet.audio.isolated import Limits
from instrunet.bundle import Bundle
from instrunet.errors import JobError
from instrunet.features.chroma import ChromaSpec
from instrunet.features.cqt import CqtSpec
from instrunet.features.featurizer import Featurizer, FrontEnd, Statistics
from instrunet.models import MODELS, Network, any_length
from instrunet.models.attentive import AttentiveSpec
from instrunet.models.ensemble import EnsembleSpec
from instrunet.models.resnet import HarmonicsResnetSpec
from instrunet.models.seed_cnn import Iteration11Spec, MultiscaleSpec, Task8Spec

UNITS = UnitSpec(unit_s=3)
ATTENTIVE = AttentiveSpec(widths=(8, 16), pools=((2, 2), (2, 2)), views=("plain", "position"))
WAIT_S = 60


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every status, and sounds of many lengths."""
    folder = tmp_path_factory.mktemp("device")
    write_archive(folder)
    for k in range(9):
        write(folder / f"m/{k}.wav", sound(0.3 + 0.35 * k, 200 + 90 * k))
    quiet = np.concatenate([np.zeros(9000, np.float32), sound(0.6), np.zeros(9000, np.float32)])
    write(folder / "m/pauses.wav", quiet)
    return folder


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(Limits(), 3) as decoders:
        yield decoders


def bundle_of(any_lengths: bool = False, **front: Any) -> Bundle:
    """As `tiny_bundle`, of another front end; one that takes windows of any length as they are."""
    plain = tiny_bundle("multi")
    spec = plain.spec.model_copy(update={"front": FRONT.model_copy(update=front)})
    spec = spec.model_copy(update={"statistics": statistics(spec.front)})
    spec = spec.model_copy(update={"model": ATTENTIVE}) if any_lengths else spec
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(spec.model, spec.front, spec.statistics, len(spec.labels))
    last = [part for part in network.body.head.modules() if isinstance(part, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(1500 if any_lengths else 40)
        last.bias.zero_()
    return Bundle(spec, network)


def statistics(front: FrontEnd) -> Statistics:
    names = [feature.name for feature in front.features]
    return Statistics(mean=dict.fromkeys(names, (-5.0,)), std=dict.fromkeys(names, (3.0,)), n_windows=1)


@pytest.fixture(autouse=True)
def one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for a probe whose answer it does not take."""
    monkeypatch.setattr(device, "SIZES", (16,))


def on_device(bundle: Bundle, decoders: Decoders, n_windows: int) -> Device:
    made = Device(bundle, "cpu", decoders.threads)
    made.n_windows = n_windows
    return made


FRONTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "overlapping": {"hop_s": 0.4},
    "adaptive": {"length": "adaptive", "min_s": 0.5},
    "of any length": {"length": "adaptive", "min_s": 0.5, "any_lengths": True},
    "adaptive, RMS, trimmed": {"length": "adaptive", "min_s": 0.2, "level": "rms", "trim_db": 35},
    "first window": {"long": "first"},
    "two features": {"features": (FRONT.features[0], ChromaSpec(sample_rate=8000, n_fft=512, hop_length=256))},
}


@pytest.mark.parametrize(
    ("name", "n_windows"), [*((name, 5) for name in FRONTS), ("plain", 1), ("plain", 512), ("of any length", 512)]
)
def test_rows_are_those_of_one_by_one(name: str, n_windows: int, archive: Path, decoders: Decoders) -> None:
    bundle = bundle_of(**FRONTS[name])
    units = work_rows(archive, UNITS, bundle.fingerprint)
    plain = tagger.tag_all(units, bundle, decoders.read, True)
    made = tagger.tag_all(units, bundle, decoders.read, True, device=on_device(bundle, decoders, n_windows))
    assert tagger.table(made, True).schema == tagger.EMBEDDED
    near = ("scores", "measures", "embeddings")
    assert [{k: v for k, v in row.items() if k not in near} for row in made] == [
        {k: v for k, v in row.items() if k not in near} for row in plain
    ]
    assert {"tagged", "silent", "too_short", "damaged", "corrupt"} <= {row["status"] for row in made}
    for one, other in zip(made, plain, strict=True):
        assert np.shape(one["scores"]) == np.shape(other["scores"])
        np.testing.assert_allclose(one["measures"], other["measures"], rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(half(one["scores"]), half(other["scores"]), atol=1e-3)
        np.testing.assert_allclose(half(one["embeddings"]), half(other["embeddings"]), atol=1e-2, rtol=1e-2)
    spread = np.array([scores for row in plain for scores in row["scores"]])
    assert np.ptp(spread, axis=0).max() > 0.05  # or rows in another order would pass


def half(values: Any) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return np.array(values, np.float16).astype(np.float32)


def test_without_embeddings_and_without_sound(archive: Path, decoders: Decoders) -> None:
    bundle = bundle_of()
    made = on_device(bundle, decoders, 8)
    units = [
        unit for unit in work_rows(archive, UNITS, bundle.fingerprint) if "silent" in unit["uri"] or unit["status"]
    ]
    rows = tagger.tag_all(units, bundle, decoders.read, device=made)
    assert tagger.table(rows).schema == tagger.SCHEMA
    assert rows == tagger.tag_all(units, bundle, decoders.read)
    assert tagger.tag_all([], bundle, decoders.read, device=made) == []


def tones(folder: Path, n: int) -> Path:
    for k in range(n):
        write(folder / f"{k:02d}.wav", sound(1.0, 200 + 30 * k))
    return folder


def test_as_many_are_decoded_at_a_time_as_there_are_decoders(tmp_path: Path, decoders: Decoders) -> None:
    bundle, together = bundle_of(), threading.Barrier(3)

    def read(*of: Any) -> io.Sound:
        together.wait(WAIT_S)  # a fourth of three would wait in vain, a third of two too
        return decoders.read(*of)

    units = work_rows(tones(tmp_path, 9), UNITS, bundle.fingerprint)
    rows = tagger.tag_all(units, bundle, read, device=on_device(bundle, decoders, 2))
    assert [row["uri"] for row in rows] == [unit["uri"] for unit in units]


def test_the_next_units_are_decoded_while_these_are_scored(tmp_path: Path, decoders: Decoders) -> None:
    """A batch is scored only when all of the next one has been decoded: else it would wait for ever."""
    bundle = bundle_of()
    units = work_rows(tones(tmp_path, 12), UNITS, bundle.fingerprint)
    decoded = {unit["uri"]: threading.Event() for unit in units}
    batches: list[list[str]] = []
    made = on_device(bundle, decoders, 4)

    def read(path: Path, *of: Any) -> io.Sound:
        found = decoders.read(path, *of)
        decoded[str(path)].set()
        return found

    def before(network: torch.nn.Module, given: Any) -> None:
        n = sum(map(len, batches))
        batches.append([unit["uri"] for unit in units[n : n + len(given[0]["logmel"])]])
        for unit in units[n + 4 : n + 8]:
            assert decoded[unit["uri"]].wait(WAIT_S)

    hook = made._network.register_forward_pre_hook(before)
    rows = tagger.tag_all(units, bundle, read, device=made)
    hook.remove()
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert [row["uri"] for row in rows] == [uri for batch in batches for uri in batch]


def test_threads_make_parts_on_one_device(tmp_path: Path, decoders: Decoders) -> None:
    bundle = bundle_of()
    units = work_rows(tones(tmp_path, 24), UNITS, bundle.fingerprint)
    made, plain = on_device(bundle, decoders, 4), tagger.tag_all(units, bundle, decoders.read)
    found: dict[int, list[dict[str, Any]]] = {}

    def part(k: int) -> None:
        found[k] = tagger.tag_all(units[6 * k : 6 * k + 6], bundle, decoders.read, device=made)

    threads = [threading.Thread(target=part, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [row for k in range(4) for row in found[k]]
    assert [row["unit_id"] for row in rows] == [row["unit_id"] for row in plain]
    np.testing.assert_allclose([row["scores"] for row in rows], [row["scores"] for row in plain], atol=1e-3)


def test_an_object_is_fetched_once_however_many_decode_it(
    tmp_path: Path, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[str] = []

    @contextmanager
    def sound_of(uri: str, n_bytes: int | None = None) -> Iterator[Path]:
        del n_bytes
        there.append(uri)
        held[uri] = held.get(uri, 0) + 1
        yield Path(uri)
        held[uri] -= 1

    held: dict[str, int] = {}
    bundle = bundle_of()
    for name in "abc":
        write(tmp_path / f"{name}.wav", sound(4.5, 300 + ord(name)))
    units = work_rows(tmp_path, UnitSpec(unit_s=1), bundle.fingerprint)
    monkeypatch.setattr(tagger.places, "sound", sound_of)
    tagger.tag_all(units, bundle, decoders.read, device=on_device(bundle, decoders, 4))
    assert sorted(there) == [f"{tmp_path}/{name}.wav" for name in "abc"]
    assert set(held.values()) == {0}


def test_a_file_that_crashes_decoders_costs_its_own_row_and_is_tried_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tests/crashing"))
    monkeypatch.setenv("ONCE", str(tmp_path / "once"))
    bundle = bundle_of()
    for k, mark in enumerate([b"", b"abort at read", b"", b"kill me once", b"", b""]):
        path = write(tmp_path / f"in/{k}.wav", sound(1.0, 200 + 50 * k))
        content = bytearray(path.read_bytes())
        content[44 : 44 + len(mark)] = mark
        path.write_bytes(content)
    units = work_rows(tmp_path / "in", UNITS, bundle.fingerprint)
    with Decoders(Limits(), 3) as own:
        rows = tagger.tag_all(units, bundle, own.read, device=on_device(bundle, own, 2))
    assert [row["status"] for row in rows] == ["tagged", "corrupt", "tagged", "tagged", "tagged", "tagged"]
    assert "died of signal 6 (SIGABRT)" in rows[1]["error"]


def test_what_fails_is_told_and_no_thread_is_left_at_work(tmp_path: Path, decoders: Decoders) -> None:
    bundle, begun = bundle_of(), []

    def read(path: Path, *of: Any) -> io.Sound:
        begun.append(path)
        if path.name == "02.wav":
            raise JobError("the decoder cannot be started")
        return decoders.read(path, *of)

    units = work_rows(tones(tmp_path, 20), UNITS, bundle.fingerprint)
    with pytest.raises(JobError, match="cannot be started"):
        tagger.tag_all(units, bundle, read, device=on_device(bundle, decoders, 4))
    assert len(begun) < 12


def test_seconds_of_several_decoders_count_once() -> None:
    clock = Clock(4)
    for stage in ("decode", "network"):
        began = 0.0
        clock.add(stage, began)
    assert clock.seconds["decode"] == pytest.approx(clock.seconds["network"] / 4, rel=0.01)


@pytest.mark.parametrize(
    ("rates", "n"),
    [
        ({16: 100.0, 32: 101.0, 64: 105.0}, 16),
        ({16: 100.0, 32: 190.0, 64: 350.0, 128: 390.0, 256: 395.0}, 128),
        ({16: 100.0, 32: 50.0}, 16),
        ({16: 1.0}, 16),
    ],
)
def test_the_smallest_batch_that_is_nearly_as_fast_is_taken(rates: dict[int, float], n: int) -> None:
    assert device.smallest(rates) == n


def test_sizes_are_tried_as_far_as_memory_and_time_go(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "SIZES", (16, 32, 64))
    made = Device(bundle_of(), "cpu", decoders.threads)
    assert made.n_windows in (16, 32, 64)
    assert list(made.rates()) == [16, 32, 64]

    def out_of_memory(above: int) -> Callable[..., Any]:
        def hook(network: torch.nn.Module, given: Any) -> None:
            if len(given[0]["logmel"]) > above:
                raise torch.OutOfMemoryError("CUDA out of memory")

        return hook

    with closing(_Hooked(made, out_of_memory(40))):
        assert list(made.rates()) == [16, 32]
    with closing(_Hooked(made, out_of_memory(4))), pytest.raises(JobError, match="expected memory for 16 windows"):
        made.rates()
    monkeypatch.setattr(device, "LONG_S", 0.0)
    assert list(made.rates()) == [16]


class _Hooked:
    def __init__(self, made: Device, hook: Callable[..., Any]) -> None:
        self.close = made._network.register_forward_pre_hook(hook).remove


def test_a_device_that_is_not_there_is_told(decoders: Decoders) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(
        JobError, match="expected CUDA where Ray gives a GPU, torch .* finds none: .*--runtime torch/fp"
    ):
        Device(bundle_of(), "cuda", decoders.threads)


def test_what_numpy_makes_is_left_to_cores() -> None:
    assert device.able(FRONT)
    assert not device.able(FrontEnd(features=(FRONT.features[0], CqtSpec(sample_rate=8000, hop_length=256, n_bins=48))))


NETWORKS = {
    "task8": Task8Spec(),
    "iteration11": Iteration11Spec(),
    "multiscale": MultiscaleSpec(),
    "harmonics_resnet": HarmonicsResnetSpec(),
    "attentive": ATTENTIVE,
    "ensemble": EnsembleSpec(members=(Task8Spec(), Iteration11Spec())),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_of_features_or_network_stays_behind_on_the_cpu(name: str) -> None:
    """On tensors without numbers of a GPU that need not be there: an operation on two devices is an error."""
    assert name in MODELS
    front = FrontEnd(features=(FrontEnd().features[0], ChromaSpec(sample_rate=22_050)))
    network = Network(NETWORKS[name], front, statistics(front), 5).eval()
    samples = [front.window] if not any_length(NETWORKS[name]) else [front.window, front.window // 3]
    modules = Featurizer(front), network
    with FakeTensorMode(), torch.inference_mode():
        made = [_without_numbers(module) for module in modules]
        for n in samples:
            found = made[1](made[0](torch.empty(4, n, device="cuda")))
            assert (tuple(found.shape), found.device.type) == ((4, 5), "cuda")


def _without_numbers(module: torch.nn.Module) -> torch.nn.Module:
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for key, tensor in held.items():
                if tensor is not None:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    held[key] = torch.nn.Parameter(empty, requires_grad=False) if held is part._parameters else empty
    return module
