"""The audit: every kind of planted leak is found and named, and what is honest passes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import SHARED

from instrunet.audio.fingerprint import ClipPrint, audio_print, print_of, print_of_wave
from instrunet.data import audit as audits
from instrunet.data.audit import audit, prints
from instrunet.data.synth import LABELS, SynthSpec, render_clip
from instrunet.errors import DataError

RATE = 16_000
SPEC = SynthSpec(clip_s=0.8, sample_rate=RATE)


def table(rows: list[dict[str, object]]) -> pd.DataFrame:
    usual = {"uri": "", "start_s": 0.0, "stop_s": None, "labels": ["a"], "corpus": "c", "sha256": ""}
    return pd.DataFrame([usual | {"group": row["clip_id"]} | row for row in rows])


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    return [
        render_clip(SPEC, label, recording, 1).mean(0).astype(np.float32) for label in LABELS for recording in (1, 2)
    ]


@pytest.fixture(scope="module")
def honest(waves: list[np.ndarray]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """22 clips of as many recordings, every second one in the test split, and their prints."""
    frame = table(
        [{"clip_id": f"{k:02d}", "split": "test" if k % 2 else "train", "sha256": str(k)} for k in range(len(waves))]
    )
    made = [print_of_wave(wave, RATE) for wave in waves]
    return frame, printed({f"{k:02d}": one for k, one in enumerate(made)})


def printed(made: dict[str, ClipPrint]) -> pd.DataFrame:
    rows = [(name, one.samples_hash, one.print) for name, one in made.items()]
    return pd.DataFrame(rows, columns=["clip_id", "samples_hash", "print"])


def planted(
    honest: tuple[pd.DataFrame, pd.DataFrame], wave: np.ndarray, **row: object
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One clip more, called `x`, which lies in the test split of a group of its own."""
    frame, made = honest
    more = table([{"clip_id": "x", "split": "test", "sha256": "x"} | row])
    return (
        pd.concat([frame, more], ignore_index=True),
        pd.concat([made, printed({"x": print_of_wave(wave, RATE)})], ignore_index=True),
    )


def test_honest_data_is_clean(honest: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    found = audit(*honest)
    assert (found.verdict, found.reasons, found.warnings, found.n_clips, found.unchecked) == ("clean", [], [], 22, 0)


def test_a_group_on_both_sides(honest: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    frame, made = honest
    found = audit(frame.assign(group=["g", "g", *frame["group"][2:]]), made)
    assert (found.verdict, found.reasons) == ("leaky", ["1 groups lie in more than one split"])
    assert found.findings[0].clips == (("00", "01"),)


def test_the_same_samples_on_both_sides(honest: tuple[pd.DataFrame, pd.DataFrame], waves: list[np.ndarray]) -> None:
    found = audit(*planted(honest, waves[4]))
    assert found.reasons == ["1 sounds lie sample for sample in more than one split"]
    assert found.findings[0].clips == (("04", "x"),)
    inside = audit(*planted(honest, waves[4], split="train"))
    assert inside.verdict == "clean"


def test_a_near_copy_on_both_sides(honest: tuple[pd.DataFrame, pd.DataFrame], waves: list[np.ndarray]) -> None:
    late = np.concatenate([np.zeros(round(0.005 * RATE), np.float32), 0.3 * waves[6]])
    found = audit(*planted(honest, late))
    assert found.reasons == ["1 pairs of clips in different splits sound the same (copies, re-encodings)"]
    assert found.findings[0].clips == (("06", "x"),)


def test_one_pair_that_may_be_two_takes_is_a_warning(
    honest: tuple[pd.DataFrame, pd.DataFrame], waves: list[np.ndarray]
) -> None:
    late = np.concatenate([np.zeros(round(0.02 * RATE), np.float32), 0.3 * waves[6]])
    found = audit(*planted(honest, late))
    assert (found.verdict, found.findings[0].clips) == ("clean", (("06", "x"),))
    assert found.warnings == ["1 pairs of clips in different splits sound alike, as takes of one note do"]
    assert found.together == (("06", "x"),)


def test_a_certain_copy_is_a_leak_however_large_the_corpus(
    honest: tuple[pd.DataFrame, pd.DataFrame], waves: list[np.ndarray]
) -> None:
    frame, made = planted(honest, 0.3 * waves[6])
    quiet = pd.concat([frame, *(table([{"clip_id": f"q{k}", "split": "test"}]) for k in range(200))])
    prints_of_all = pd.concat([made, printed({f"q{k}": ClipPrint("", b"") for k in range(200)})])
    assert audit(quiet, prints_of_all).verdict == "leaky"  # 1 of 212 test clips


def test_an_augmented_twin_that_says_so(honest: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    frame, made = honest
    twins = frame.assign(twin_of=None)
    twins.loc[[3, 5], "twin_of"] = ["02", "03"]  # 05 is a copy of the copy
    found = audit(twins, made)
    assert found.reasons == ["1 clips have augmented copies in another split than their own"]
    assert found.findings[0].clips == (("02", "03"),)
    circle = frame.assign(twin_of=None)
    circle.loc[[3, 4], "twin_of"] = ["04", "03"]
    assert audit(circle, made).verdict == "leaky"


def test_ranges_of_one_file_on_both_sides(honest: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    frame, made = honest
    cut = frame.assign(sha256=["same", "same", *frame["sha256"][2:]], start_s=np.arange(len(frame), dtype=float))
    assert audit(cut, made).reasons == ["1 files have ranges in more than one split"]


def test_stretched_copies_are_a_leak_by_the_dozen(waves: list[np.ndarray]) -> None:
    import librosa

    slow = [librosa.effects.time_stretch(wave, rate=0.9) for wave in waves]
    sounds = {f"{k:02d}": wave for k, wave in enumerate(waves)} | {f"{k:02d}s": wave for k, wave in enumerate(slow)}
    frame = table([{"clip_id": name, "split": "test" if "s" in name else "train"} for name in sounds])
    found = audit(frame, printed({name: print_of_wave(wave, RATE) for name, wave in sounds.items()}))
    kinds = {f.kind for f in found.findings}
    assert found.verdict == "leaky" and kinds <= {"near", "stretched"}
    assert sum(f.n for f in found.findings) >= 0.3 * len(waves)  # 10 of 22


def test_one_sound_with_two_labels_is_a_warning(
    honest: tuple[pd.DataFrame, pd.DataFrame], waves: list[np.ndarray]
) -> None:
    found = audit(*planted(honest, waves[4], split="train", labels=["b"]))
    assert (found.verdict, found.reasons) == ("clean", [])
    assert found.warnings == ["1 sounds are there more than once with different labels"]
    assert found.findings[0].clips == (("04", "x"),)


def test_the_test_set_of_another_corpus(honest: tuple[pd.DataFrame, pd.DataFrame], waves: list[np.ndarray]) -> None:
    frame = table([{"clip_id": name, "split": "official", "corpus": "d"} for name in ("p", "q", "r")])
    sounds = {"p": waves[2], "q": 0.5 * waves[4], "r": waves[3]}  # r is in our test split: no harm
    other = frame, printed({name: print_of_wave(wave, RATE) for name, wave in sounds.items()})
    found = audit(*honest, other=other)
    assert found.reasons == ["2 of 3 test clips of the other corpus are in the training data"]
    assert found.findings[0].clips == (("02", "p"), ("04", "q"))


def test_the_verdict_is_the_same_json_in_any_order(
    honest: tuple[pd.DataFrame, pd.DataFrame], waves: list[np.ndarray]
) -> None:
    frame, made = planted(honest, 0.5 * waves[4])
    text = json.dumps(audit(frame, made).to_dict(), sort_keys=True)
    shuffled = audit(frame.sample(frac=1, random_state=1), made.sample(frac=1, random_state=2))
    assert json.dumps(shuffled.to_dict(), sort_keys=True) == text
    assert json.loads(text)["verdict"] == "leaky"


def test_prints_of_files(tmp_path: Path, waves: list[np.ndarray]) -> None:
    for name in ("a.wav", "b.flac"):
        soundfile.write(tmp_path / name, np.int16(waves[0] * 32767), RATE)  # floats are rounded in two ways
    (tmp_path / "c.wav").write_text("no sound")
    soundfile.write(tmp_path / "d.wav", np.zeros(RATE), RATE)
    names = ["a.wav", "b.flac", "c.wav", "d.wav"]
    frame = table(
        [{"clip_id": n, "uri": str(tmp_path / n), "split": "test" if n == "b.flac" else "train"} for n in names]
    )
    made = prints(frame)
    assert list(made.columns) == ["clip_id", "samples_hash", "print"]
    assert made["samples_hash"][0] == made["samples_hash"][1] != ""
    assert list(made["print"][2:]) == [b"", b""]
    found = audit(frame, made)
    assert (found.reasons, found.unchecked) == (["1 sounds lie sample for sample in more than one split"], 2)
    assert prints(frame[:0]).empty and audit(frame[:0], prints(frame[:0])).verdict == "clean"


def test_a_clip_without_a_print_is_refused(honest: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    frame, made = honest
    with pytest.raises(DataError) as caught:
        audit(frame, made[1:])
    assert str(caught.value) == (
        "expected a print of each of 22 clips, 1 have none, the first 00; make them with prints(frame)"
    )


def test_200_exact_copies_are_all_found() -> None:
    rng = np.random.default_rng(0)
    tones = [np.sin(np.cumsum(rng.uniform(0.05, 0.5, 8).repeat(600))).astype(np.float32) * 0.5 for _ in range(200)]
    made = {f"{k}{side}": print_of_wave(wave, RATE) for k, wave in enumerate(tones) for side in "ab"}
    found = audit(table([{"clip_id": n, "split": "test" if "b" in n else "train"} for n in made]), printed(made))
    assert [f.n for f in found.findings if f.kind == "identical"] == [200]
    assert len(found.findings[0].clips) == audits.EXAMPLES


def test_ravdess_split_by_clip_is_leaky_and_by_actor_is_clean() -> None:
    """Its actors say each sentence twice: no duplicates. Two takes of one actor are one recording, and no more."""
    folder = SHARED / "data" / "emotion"
    if not folder.is_dir():
        pytest.skip(f"the real recordings of {folder} are not on this machine")
    listed = pd.read_csv(folder / "metadata.csv")
    listed = listed[listed["group"].isin([f"ravdess-actor-{n:02d}" for n in (5, 6, 7, 8)])]
    frame = table(
        [
            {"clip_id": p, "uri": str(folder / p), "group": g}
            for p, g in zip(listed["path"], listed["group"], strict=True)
        ]
    )
    made = prints(frame)
    by_actor = frame.assign(split=np.where(frame["group"] == "ravdess-actor-08", "test", "train"))
    assert audit(by_actor, made).to_dict() | {"findings": []} == {
        "verdict": "clean", "reasons": [], "warnings": [], "findings": [], "n_clips": 240, "unchecked": 0,
    }  # fmt: skip
    by_clip = frame.assign(split=np.where(frame["clip_id"].str.contains("-01-07.ogg"), "test", "train"))
    reasons = audit(by_clip, made).reasons
    assert reasons[0] == "1 groups lie in more than one split"
    # The pack holds one take of actor 07 under two names
    assert "1 sounds lie sample for sample in more than one split" in reasons or "1 pairs" in " ".join(reasons)


def test_print_of_a_range(tmp_path: Path, waves: list[np.ndarray]) -> None:
    soundfile.write(tmp_path / "long.wav", np.concatenate(waves[:3]), RATE)
    soundfile.write(tmp_path / "short.wav", waves[1], RATE)
    assert print_of(tmp_path / "long.wav", 0.8, 1.6) == print_of(tmp_path / "short.wav")
    assert print_of(tmp_path / "short.wav").print == audio_print(
        soundfile.read(tmp_path / "short.wav", dtype="float32")[0], RATE
    )
