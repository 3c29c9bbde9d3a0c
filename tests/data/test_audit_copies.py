"""The emotion seed's mistake on its own data, multiplied first and split at random afterwards, which the audit refuses.

The copies are files with names of their own, in groups of their own, and none says what it was made of.
"""

from pathlib import Path

import pandas as pd
import pytest
import soundfile
from conftest import SHARED

from instrunet.augment.copies import SEED_EFFECTS
from instrunet.augment.waveform import augment_wave, generator
from instrunet.data import manifest, split
from instrunet.data.audit import audit, prints
from instrunet.data.split import SplitSpec

N_CLIPS = 12
KINDS = [effect.name for effect in SEED_EFFECTS]


@pytest.fixture(scope="module")
def multiplied(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    sounds = sorted((SHARED / "data/emotion/audio").rglob("*.ogg"))
    if not sounds:
        pytest.skip("the emotion pack is not there (../shared/data/emotion)")
    root = tmp_path_factory.mktemp("multiplied")
    clips = []
    for path in sounds[:: len(sounds) // N_CLIPS][:N_CLIPS]:
        wave, rate = soundfile.read(path, dtype="float32")
        made = {"original": wave}
        for k, effect in enumerate(SEED_EFFECTS, 1):
            always = effect.model_copy(update={"p": 1.0})
            made[effect.name] = augment_wave(wave, rate, [always], generator(0, k, path.stem))
        for kind, sound in made.items():
            file = Path(root / f"{path.stem}_{kind}.wav")
            soundfile.write(file, sound, rate)
            clips.append(manifest.Clip(file, ["ab"[len(clips) % 2]], file.stem))
    return manifest.make(clips, "emotion", root)


def test_multiplied_first_and_split_at_random_is_refused(multiplied: pd.DataFrame) -> None:
    heard = prints(multiplied)
    frame, _ = split.assign(multiplied, SplitSpec(by="clip"))
    found = audit(frame, heard)
    assert found.verdict == "leaky"
    assert any("in different splits sound the same" in reason for reason in found.reasons)
    kind_of = {row.clip_id: Path(row.uri).stem.split("_") for row in frame.itertuples()}
    pairs = [(kind_of[a], kind_of[b]) for finding in found.findings for a, b in finding.clips]
    assert pairs and all(a[0] == b[0] for a, b in pairs)  # no two sentences are taken for one


def test_what_the_ear_hears_of_each_kind(multiplied: pd.DataFrame) -> None:
    """Each original in training, one kind of its copies in the test split."""
    heard = prints(multiplied)
    kinds = multiplied["uri"].map(lambda uri: Path(uri).stem.split("_")[1])
    recall = {}
    for kind in KINDS:
        frame = multiplied[kinds.isin(("original", kind))]
        found = audit(frame.assign(split=kinds.map({"original": "train", kind: "test"})), heard)
        cases = {pair for finding in found.findings if finding.kind in ("near", "stretched") for pair in finding.clips}
        recall[kind] = len(cases) / N_CLIPS
    assert recall["noise"] == 1.0 and recall["stretch"] >= 0.75, recall
