"""What is picked to be labelled: the unsure, unlike each other, few of one stretch; embeddings are as asked."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from archives import RATE, make_work, sound, tiny_bundle, write, write_part

from instrunet.archive import books, review, tagger
from instrunet.archive.units import UnitSpec
from instrunet.bundle import Bundle
from instrunet.errors import ConfigError, DataError
from instrunet.models import Network
from instrunet.models.ensemble import EnsembleSpec
from instrunet.models.seed_cnn import Task8Spec
from instrunet.rule import Rule

SPEC = UnitSpec(unit_s=4)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny_bundle("multi")


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Path:
    """Six recordings in which windows differ, tagged with their embeddings; the last is silent."""
    folder = tmp_path_factory.mktemp("review")
    for k in range(6):
        write(folder / f"in/{k}.wav", sound(8.0, 200 + 150 * k) if k < 5 else np.zeros(RATE, np.float32))
    work = make_work(folder / "in", folder / "out", SPEC, bundle.fingerprint)
    for k in range(work.n_parts):
        rows = tagger.tag_all(work.part(k), bundle, embed=True)
        write_part(folder / "out", k, tagger.table(rows, embed=True))
    assert books.close(folder / "out", work, bundle)["closed"]
    return folder / "out"


def test_embeddings_are_what_the_head_reads(tags: Path, bundle: Bundle) -> None:
    table = pq.read_table(tags / "units")
    assert str(table.schema.field("embeddings").type) == "list<element: list<element: halffloat>>"
    rows = [row for row in table.to_pylist() if row["scores"]]
    assert all(len(row["embeddings"]) == len(row["scores"]) for row in table.to_pylist())
    with torch.inference_mode():
        logits = bundle.network.body.head(torch.tensor(rows[0]["embeddings"], dtype=torch.float32)).numpy()
    np.testing.assert_allclose(bundle.activated(logits), rows[0]["scores"], atol=0.03)  # of half precision, times 40


def test_without_asking_there_are_none_and_scores_are_the_same(tags: Path, bundle: Bundle) -> None:
    row = pq.read_table(tags / "units").to_pylist()[0]
    unit = {**row, "status": "", "n_bytes": None}
    plain = tagger.tag(unit, bundle)
    assert "embeddings" not in plain
    np.testing.assert_allclose(plain["scores"], row["scores"], atol=1e-3)


def test_unsure_is_what_could_be_either() -> None:
    scores = np.array([[0.5, 0.45, 0.05], [0.9, 0.05, 0.05]])
    one = review.unsureness(scores, Rule(tiny_bundle().spec))
    assert one == pytest.approx([0.95, 0.15])
    several = review.unsureness(np.array([[0.9, 0.49, 0.1], [0.9, 0.1, 0.1]]), Rule(tiny_bundle("multi").spec))
    assert several == pytest.approx([0.99, 0.6])


def test_the_least_sure_is_first_and_none_twice(tags: Path, bundle: Bundle) -> None:
    windows = review.pick([tags], 8, bundle.rule)
    assert len({(window.uri, window.start_s) for window in windows}) == 8
    every = [
        float(value)
        for row in pq.read_table(tags / "units").to_pylist()
        if row["scores"]
        for value in review.unsureness(np.array(row["scores"]), bundle.rule)
    ]
    assert windows[0].unsure == pytest.approx(max(every), abs=1e-6)
    assert all(0 < window.stop_s - window.start_s <= 1 for window in windows)
    assert review.pick([tags], 8, bundle.rule)[3].uri == windows[3].uri  # the same each time


def test_alike_windows_are_not_all_picked() -> None:
    """Fifty copies of the least sure one, and four others: the others come next."""
    alike = [window(0.9, [1.0, 0.0, 0.0]) for _ in range(50)]
    others = [window(0.6, point) for point in ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0])]
    picked = review._spread([*alike, *others], 5)
    assert picked[0] == 0 and sorted(picked[1:]) == [50, 51, 52, 53]


def window(unsure: float, place: list[float]) -> review.Window:
    return review.Window("/a.wav", 0.0, 1.0, unsure, np.array(place, np.float32), np.array(place, np.float32))


def test_neighbours_are_few(tags: Path, bundle: Bundle) -> None:
    windows = review.pick([tags], 1000, bundle.rule)
    by_unit: dict[tuple[str, bool], int] = {}
    for one in windows:
        key = one.uri, one.start_s >= 4
        by_unit[key] = by_unit.get(key, 0) + 1
    assert max(by_unit.values()) == review.FEWEST and len(by_unit) == 10


def test_members_that_disagree_are_told_apart_by_their_heads(tags: Path) -> None:
    """Of an ensemble of two, whose heads read the halves of an embedding."""
    spec = tiny_bundle().spec
    members = EnsembleSpec(picture=spec.model.picture, members=(Task8Spec(), Task8Spec()))
    front, statistics = spec.front, spec.statistics
    both = Bundle(spec.model_copy(update={"model": members}), Network(members, front, statistics, len(spec.labels)))
    points = np.random.default_rng(0).standard_normal((5, both.network.body.width)).astype(np.float32)
    said = review.members_of(both)(points)
    assert said.shape == (2, 5, 3) and said.sum(2) == pytest.approx(np.ones((2, 5)), abs=1e-5)
    with torch.inference_mode():
        logits = both.network.body.head(torch.from_numpy(points))
        theirs = torch.from_numpy(said).log()
    mean = theirs.mean(0).softmax(1).numpy()
    np.testing.assert_allclose(mean, logits.softmax(1).numpy(), atol=1e-5)
    assert review.disagreement(said, "single").max() > 0
    with pytest.raises(ConfigError, match="--bundle needs an ensemble, .* task8 is none"):
        review.members_of(tiny_bundle())


def test_disagreement_is_0_where_all_say_the_same_and_1_where_none_does() -> None:
    sure = np.eye(2, dtype=np.float32)  # two members [2, 1, 2], one says the first label, one the second
    assert review.disagreement(sure[:, None], "single") == pytest.approx([0.5])
    assert review.disagreement(sure[:, None], "multi") == pytest.approx([1.0])
    assert review.disagreement(np.stack([sure, sure]), "single") == pytest.approx([0.0, 0.0])


def test_nothing_heard_is_told(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "units").mkdir()
    with pytest.raises(DataError, match="expected tags with scores, found none"):
        review.pick([tmp_path], 5, bundle.rule)
