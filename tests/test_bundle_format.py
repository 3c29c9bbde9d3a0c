"""The format of bundles, held to one that was stored: read by this version, with the same answers."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from golden.with_bundle import layouts, waves
from making import RATE, draft

from instrunet.bundle import SPEC_FILE, WEIGHTS_FILE, Bundle
from instrunet.bundle_spec import BundleSpec
from instrunet.errors import BundleError, ConfigError
from instrunet.models.backbone import BackboneSpec
from instrunet.models.picture import PictureSpec

GOLDEN = ROOT / "tests/golden"
LATER = ("profile", "decisions", "runtimes")  # keys that the first bundles did not have


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "bundle-1", tmp_path / "bundle"))


def tree(path: Path) -> dict[str, Any]:
    return dict(json.loads((path / SPEC_FILE).read_text(encoding="utf-8")))


def test_a_stored_bundle_gives_the_answers_stored_beside_it() -> None:
    bundle = Bundle.load(GOLDEN / "bundle-1")
    for wave, told in zip(waves(), json.loads((GOLDEN / "bundle-1.json").read_text()), strict=True):
        said = bundle(wave, RATE).to_dict()
        assert said["scores"] == pytest.approx(told["scores"], abs=1e-4)
        for ours, theirs in zip(said["window_scores"], told["window_scores"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)
        assert {k: said[k] for k in ("labels", "status", "flags", "window_start_s")} == {
            k: told[k] for k in ("labels", "status", "flags", "window_start_s")
        }
        assert said["drift"] == pytest.approx(told["drift"], abs=0.01)


def test_it_is_written_again_as_it_was(tmp_path: Path) -> None:
    saved = Bundle.load(GOLDEN / "bundle-1").save(tmp_path / "again")
    assert sorted(path.name for path in saved.iterdir()) == [SPEC_FILE, WEIGHTS_FILE]
    for name in (SPEC_FILE, WEIGHTS_FILE):
        assert (saved / name).read_bytes() == (GOLDEN / "bundle-1" / name).read_bytes()


def test_one_that_is_older_than_a_key_is_read(copy: Path) -> None:
    first = {key: value for key, value in tree(copy).items() if key not in LATER}
    first["trained"] = {"corpus": "tones", "seed": 7}
    (copy / SPEC_FILE).write_text(json.dumps(first))
    bundle = Bundle.load(copy)
    assert (bundle.spec.profile, bundle.spec.decisions, bundle.spec.runtimes) == (None, None, ())
    assert bundle(waves()[0], RATE).window_scores == Bundle.load(GOLDEN / "bundle-1")(waves()[0], RATE).window_scores


def test_every_network_still_calls_its_weights_what_it_did() -> None:
    assert layouts() == json.loads((GOLDEN / "networks.json").read_text())


def test_the_page_tells_every_key() -> None:
    said = (ROOT / "docs/bundle.md").read_text(encoding="utf-8")
    assert [name for name in BundleSpec.model_fields if f"`{name}`" not in said] == []


def test_no_key_can_name_a_file(copy: Path) -> None:
    for key in ("weights", "weights_file", "path"):
        (copy / SPEC_FILE).write_text(json.dumps(tree(copy) | {key: "../../secret"}))
        with pytest.raises(BundleError, match=f"unknown field {key}"):
            Bundle.load(copy)


def test_other_files_are_not_looked_at(copy: Path) -> None:
    (copy / "weights.pkl").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    (copy / "extra").symlink_to("/etc")
    assert Bundle.load(copy).fingerprint == Bundle.load(GOLDEN / "bundle-1").fingerprint


def test_a_missing_extra_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = draft(model=BackboneSpec(picture=PictureSpec(size=32))).model_dump(mode="json", exclude={"runtimes"})
    (copy / SPEC_FILE).write_text(json.dumps(spec))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"backbone needs the extra `backbone`: pip install 'instrunet\[backbone\]'"):
        Bundle.load(copy)


@pytest.mark.parametrize("cut", [0, 1, 2000, -1])
def test_a_cut_description_is_refused(copy: Path, cut: int) -> None:
    text = (copy / SPEC_FILE).read_text(encoding="utf-8").rstrip()
    (copy / SPEC_FILE).write_text(text[:cut])
    with pytest.raises(BundleError, match="cannot be read as JSON") as error:
        Bundle.load(copy)
    assert "\n" not in str(error.value)


def test_every_bit_counts(copy: Path) -> None:
    """A byte changed anywhere in the weights is refused: in their header, their middle, their end."""
    whole = (copy / WEIGHTS_FILE).read_bytes()
    for at in (0, 8, 40, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[at] ^= 1
        (copy / WEIGHTS_FILE).write_bytes(bytes(changed))
        with pytest.raises(BundleError, match="is not the file that bundle.json was sealed with"):
            Bundle.load(copy)
