"""The embedded corpus: its bytes, its names, its sound, and what happens to a folder that is in the way."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from instrunet.data import synth
from instrunet.data.synth import LABELS, SynthSpec, clip_name, mixture_stem, render_clip, render_mixture, write_corpus
from instrunet.data.synth_voices import VOICES, Player, draw_player, note
from instrunet.errors import DataError

TINY = SynthSpec(recordings=1, clips=2, clip_s=0.5, mixtures=2, sample_rate=8000)
NAME = re.compile(
    r"(?:\d{3}__)?\[(?P<label>cel|cla|flu|gac|gel|org|pia|sax|tru|vio|voi)\](?P<drums>\[(?:dru|nod)\])?"
    r"\[(?:cla|cou_fol|jaz_blu|lat_sou|pop_roc)\](?P<recording>\d{4})__(?P<clip>\d+)\.wav"
)
TITLE = re.compile(r"\(\d\d\) \w+ \w+-[12]")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(TINY, tmp_path_factory.mktemp("synth") / "irmas")


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_same_spec_gives_same_bytes(corpus: Path, tmp_path: Path) -> None:
    assert contents(write_corpus(TINY, tmp_path / "again")) == contents(corpus)


def test_another_seed_gives_another_sound() -> None:
    other = TINY.model_copy(update={"seed": 1})
    assert not np.array_equal(render_clip(TINY, "pia", 1, 1), render_clip(other, "pia", 1, 1))


def test_a_clip_does_not_depend_on_how_many_there_are(corpus: Path, tmp_path: Path) -> None:
    larger = TINY.model_copy(update={"recordings": 2, "clips": 3, "mixtures": 3})
    more = contents(write_corpus(larger, tmp_path / "larger"))
    for path, data in contents(corpus).items():
        assert path == synth.MARKER or more[path] == data


def test_recordings_and_clips_all_differ() -> None:
    clips = [render_clip(TINY, label, r, c) for label in ("flu", "org") for r in (1, 2) for c in (1, 2)]
    assert len({clip.tobytes() for clip in clips}) == len(clips)


def test_layout_is_that_of_irmas(corpus: Path) -> None:
    folders = sorted(p.name for p in (corpus / "IRMAS-TrainingData").iterdir())
    assert tuple(folders) == LABELS
    for label in LABELS:
        matches = [NAME.fullmatch(p.name) for p in (corpus / "IRMAS-TrainingData" / label).iterdir()]
        assert sorted((m["label"], m["recording"], m["clip"]) for m in matches if m) == [
            (label, "0001", "1"),
            (label, "0001", "2"),
        ]
    wave = soundfile.info(str(next(corpus.glob("IRMAS-TrainingData/cel/*.wav"))))
    assert (wave.channels, wave.samplerate, wave.subtype, wave.frames) == (2, 8000, "PCM_16", 4000)


def test_names_sometimes_have_a_prefix_and_sometimes_omit_the_drums() -> None:
    names = [clip_name(SynthSpec(), label, r, c) for label in LABELS for r in range(1, 41) for c in (1, 2, 3)]
    matches = [m for m in map(NAME.fullmatch, names) if m]
    assert len(matches) == len(names)
    assert 0.2 < np.mean([not name.startswith("[") for name in names]) < 0.3
    assert 0.1 < np.mean([m["drums"] is None for m in matches]) < 0.25
    assert {m["drums"] for m in matches} == {None, "[dru]", "[nod]"}


def test_clips_of_a_recording_share_all_but_the_prefix_and_the_clip() -> None:
    names = {re.sub(r"^\d+__|\d\.wav$", "", clip_name(SynthSpec(), "gac", 7, c)) for c in range(1, 9)}
    assert len(names) == 1


def test_mixtures_come_with_labels_in_irmas_form(corpus: Path) -> None:
    folder = corpus / "IRMAS-TestingData-Part1" / "Part1"
    waves, texts = sorted(folder.glob("*.wav")), sorted(folder.glob("*.txt"))
    assert [p.stem for p in waves] == [p.stem for p in texts]
    assert all(TITLE.fullmatch(p.stem) for p in waves)
    assert len({p.stem[:-2] for p in waves}) == 1  # two excerpts, one title
    for wave, text in zip(waves, texts, strict=True):
        assert re.fullmatch(rb"((cel|cla|flu|gac|gel|org|pia|sax|tru|vio|voi)\t\r\n){1,3}", text.read_bytes())
        assert 6 <= soundfile.info(str(wave)).duration <= 10


def test_mixtures_hold_one_to_three_distinct_labels_and_titles_are_distinct() -> None:
    counts = {len(set(render_mixture(TINY, m)[1])) for m in range(12)}
    assert counts == {1, 2, 3}
    assert len({mixture_stem(TINY, m) for m in range(200)}) == 200


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("hz", [220.0, 329.63])
def test_a_note_has_the_pitch_that_was_asked_for(label: str, hz: float) -> None:
    rate = 16_000
    sound = note(Player(VOICES[label]), hz, rate, rate, np.random.default_rng(0))[rate // 4 :]
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 18)) ** 2
    freqs = np.fft.rfftfreq(1 << 18, 1 / rate)
    near = (freqs > hz * 2 ** (-1 / 6)) & (freqs < hz * 2 ** (1 / 6))
    centre = np.sum(power[near] * freqs[near]) / np.sum(power[near])  # vibrato has a centre, not a peak
    assert abs(1200 * np.log2(centre / hz)) < 10
    assert np.sum(power[near]) > 0.02 * np.sum(power)


def test_detune_moves_the_pitch() -> None:
    rate = 16_000
    pitches = []
    for cents in (0.0, 100.0):
        sound = note(Player(VOICES["gac"], detune_cents=cents), 220, rate, rate, np.random.default_rng(0))
        power = np.abs(np.fft.rfft(sound, 1 << 18))
        pitches.append(int(np.argmax(power[3400:4000])) + 3400)
    assert 1200 * np.log2(pitches[1] / pitches[0]) == pytest.approx(100, abs=3)


def test_a_clarinet_has_next_to_no_second_partial() -> None:
    rate = 16_000
    power = {}
    for label in ("cla", "sax"):
        sound = note(Player(VOICES[label]), 200, rate, rate, np.random.default_rng(0))[rate // 4 :]
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), rate)) ** 2
        power[label] = spectrum[380:421].sum() / spectrum[190:211].sum()
    assert power["cla"] < 0.1 * power["sax"]


@pytest.mark.parametrize("label", LABELS)
def test_a_clip_is_finite_stereo_and_below_full_scale(label: str) -> None:
    for recording in range(1, 5):
        wave = render_clip(TINY, label, recording, 1)
        assert wave.shape == (2, 4000)
        assert np.isfinite(wave).all()
        assert 10 ** (-18 / 20) < np.abs(wave).max() < 10 ** (-0.9 / 20)
        assert not np.array_equal(wave[0], wave[1])


def test_players_stay_apart_from_each_other() -> None:
    first, second = (draw_player(VOICES["vio"], np.random.default_rng(i)) for i in (0, 1))
    assert first.detune_cents != second.detune_cents
    assert first.vibrato_hz != second.vibrato_hz


def test_a_whole_corpus_is_left_alone(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "_write_all", None)  # calling it would fail
    assert write_corpus(TINY, corpus) == corpus


def test_progress_counts_every_file(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_corpus(TINY, tmp_path / "irmas", lambda done, total: calls.append((done, total)))
    assert calls == [(i, 24) for i in range(1, 25)]


def test_another_spec_is_refused(corpus: Path) -> None:
    other = TINY.model_copy(update={"seed": 5, "clips": 3})
    before = contents(corpus)
    with pytest.raises(DataError) as error:
        write_corpus(other, corpus)
    assert str(error.value) == (
        f"expected a synthetic corpus with seed=5, clips=3 at {corpus}, it was made with seed=0, clips=2; "
        "name another folder, or remove this one to have the corpus made again"
    )
    assert contents(corpus) == before


@pytest.mark.parametrize("text", [None, "", "[1]", "{"])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, text: str | None) -> None:
    (tmp_path / "thesis.txt").write_text("the only copy")
    if text is not None:
        (tmp_path / synth.MARKER).write_text(text)
    with pytest.raises(DataError, match=r"expected a synthetic corpus or nothing at .*no readable corpus\.json; name"):
        write_corpus(TINY, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "the only copy"


def test_a_corpus_with_a_file_missing_is_refused(tmp_path: Path) -> None:
    root = write_corpus(TINY, tmp_path / "irmas")
    next(root.rglob("*.wav")).unlink()
    with pytest.raises(DataError, match=r"expected 24 \.wav files under .*, found 23; name another folder"):
        write_corpus(TINY, root)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    root = tmp_path / "irmas"
    root.mkdir()
    write_corpus(TINY, root)
    assert json.loads((root / synth.MARKER).read_text())["recordings"] == 1


@pytest.mark.parametrize("mistake", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, mistake: type[BaseException]) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise mistake

    with pytest.raises(mistake):
        write_corpus(TINY, tmp_path / "irmas", stop)
    assert list(tmp_path.iterdir()) == []


def test_a_faster_writer_of_the_same_corpus_wins(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "irmas"

    def race(done: int, total: int) -> None:
        if done == total:
            write_corpus(TINY, root)

    assert write_corpus(TINY, root, race) == root
    assert contents(root) == contents(corpus)
    assert list(tmp_path.iterdir()) == [root]
