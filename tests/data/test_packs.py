"""Packs: plain tars that hold an archive byte for byte, and paths into them that answer as the archive's own do."""

import argparse
import errno
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import make_work, pack_archive, sound, tag_archive, tiny_bundle, write, write_archive
from making import FRONT
from pydantic import TypeAdapter

from instrunet.archive import listing, sources
from instrunet.archive.units import UnitSpec
from instrunet.data import corpora, manifest, packing, packs, parts, places
from instrunet.data.packed import INDEX, SHARDS
from instrunet.data.store import ObjectError
from instrunet.errors import ConfigError, DataError, InstrunetError, JobError
from instrunet.experiment import ClusterSpec
from instrunet.features import shards
from pipelines import cli, features, pack, sides

SPEC = UnitSpec(unit_s=3)
ODD = (
    "Album/1.txt",
    "Album (live)/1.txt",
    "Album.txt",
    "Album/b/2.txt",
    "Album/b.txt",
    "zero",
    "n" * 120 + "/ü 箏.txt",
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every status, and names that sort and are spelt in odd ways."""
    folder = tmp_path_factory.mktemp("packs") / "archive"
    write_archive(folder)
    for name in ODD:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name * (name != "zero"))
    (folder / "other.wav").symlink_to(folder / "a.wav")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture(scope="module")
def packed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_archive(archive, tmp_path_factory.mktemp("out") / "archive.packed")


def files_of(archive: Path) -> dict[str, bytes]:
    return {p.relative_to(archive).as_posix(): p.read_bytes() for p in archive.rglob("*") if p.is_file()}


def shards_of(packed: Path) -> list[Path]:
    return sorted(Path(str(packed)).glob("shards/*.tar"))


def unpacked(packed: Path) -> Iterator[tuple[str, bytes]]:
    """By Python's own reader of tars."""
    for shard in shards_of(packed):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file
                yield member.name, file.read()


def remade(packed: Path, folder: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(str(packed), folder / "copy.packed"))


def statuses(archive: Path, out: Path) -> dict[str, str]:
    tag_archive(archive, out, tiny_bundle(), SPEC)
    rows = [row for path in sorted((out / "units").iterdir()) for row in pq.read_table(path).to_pylist()]
    return {row["uri"].removeprefix(f"{archive}/"): row["status"] for row in rows}


def test_the_tars_hold_the_archive_and_any_tool_reads_them(archive: Path, packed: Path) -> None:
    members = list(unpacked(packed))
    assert dict(members) == files_of(archive)
    assert len(members) == len(files_of(archive))


def test_a_shard_is_no_longer_than_asked_unless_a_file_is(packed: Path) -> None:
    sizes = [path.stat().st_size for path in shards_of(packed)]
    assert len(sizes) > 3
    for shard, size in zip(shards_of(packed), sizes, strict=True):
        with tarfile.open(shard) as tar:
            assert size <= 50_000 or len(tar.getmembers()) == 1


def test_the_same_files_make_the_same_bytes(archive: Path, packed: Path, tmp_path: Path) -> None:
    def late(source: str, to: str) -> None:
        shutil.copyfile(source, to)
        os.utime(to, (5, 5))

    copy = shutil.copytree(archive, tmp_path / "x", copy_function=late, ignore=lambda *_: ["pipe", "gone.wav"])
    again = pack_archive(Path(copy), tmp_path / "x.packed")
    for ours, theirs in zip(shards_of(again), shards_of(packed), strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


def test_paths_answer_as_those_of_the_archive(archive: Path, packed: Path) -> None:
    def told(root: Path) -> list[tuple[object, ...]]:
        return [
            (p.relative_to(root).as_posix(), p.name, p.suffix, p.stem, p.exists(), p.is_file(), p.is_dir())
            for p in sorted(root.rglob("*"))
            if p.name != "pipe"
        ]

    assert told(packed) == told(archive)
    for pattern in ("*", "*/*", "Album*/*.txt", "deep/er/*.wav"):
        ours, theirs = ({p.relative_to(r).as_posix() for p in r.glob(pattern)} for r in (packed, archive))
        assert ours == theirs, pattern
    assert {p.name for p in packed.iterdir()} == {p.name for p in archive.iterdir()}
    assert {p.name for p in (packed / "Album").iterdir()} == {"1.txt", "b", "b.txt"}
    for name, content in files_of(archive).items():
        assert (packed / name).read_bytes() == content
    assert (packed / "notes.txt").read_text() == (archive / "notes.txt").read_text()
    with (packed / "notes.txt").open(encoding="utf-8") as file:
        assert file.readline() == (archive / "notes.txt").read_text()
    assert not (packed / "Alb").exists() and not (packed / "a.wav/b").exists()
    assert (packed.is_dir(), packed.is_file()) == (True, False)


def test_the_index_is_read_once(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert packed.is_dir()
    monkeypatch.setattr(pq, "read_table", lambda *_: pytest.fail("read again"))
    assert places.located(f"{packed}/a.wav").is_file()


def test_identity_is_content(archive: Path, packed: Path, tmp_path: Path) -> None:
    whole = manifest.sha256_of(archive / "a.wav")
    assert places.identity(packed / "a.wav") == ((archive / "a.wav").stat().st_size, whole)
    again = pack_archive(archive, tmp_path / "again.packed", shard_mb=1)
    assert places.identity(again / "a.wav") == places.identity(packed / "z_copy.wav")
    assert places.checksum(packed / "gone.wav") == ""


def test_tags_are_those_of_the_archive(archive: Path, packed: Path, tmp_path: Path) -> None:
    made = {}
    for root in (archive, packed):
        out = tmp_path / root.name
        tag_archive(root, out, tiny_bundle(), SPEC)
        rows = [row for path in sorted((out / "units").iterdir()) for row in pq.read_table(path).to_pylist()]
        made[root] = [
            {k: v for k, v in row.items() if k not in ("unit_id", "error")}
            | {"uri": row["uri"].removeprefix(f"{root}/"), "error": row["error"].replace(f"{root}/", "")}
            for row in rows
        ]
    ours, theirs = made[packed], made[archive]
    assert {row["status"] for row in ours} >= {"tagged", "damaged", "corrupt", "duplicate", "unreadable", "silent"}
    for row in (*ours, *theirs):  # in other words alone
        row["error"] *= row["status"] != "unreadable"
    assert ours == theirs


def test_why_a_name_has_no_file(packed: Path) -> None:
    why = {"gone.wav": "a link that leads nowhere", "box.wav": "an empty folder", "deep": "a folder", "no": "nothing"}
    for name, found in why.items():
        with pytest.raises(ObjectError, match=f"expected a file at .*/{name}, found {found}$"):
            list(places.located(f"{packed}/{name}").chunks())  # type: ignore[attr-defined]


def spec_of(name: str, root: Path) -> Any:
    return TypeAdapter(corpora.CorpusSpec).validate_python({"name": name, "root": str(root)})


@pytest.mark.parametrize("name", ["folder", "csv", "irmas"])
def test_a_packed_corpus_has_the_manifest_of_the_corpus(
    name: str, tmp_path: Path, small_corpus: Path, small_folder: Path
) -> None:
    root = small_folder if name == "csv" else small_corpus / "IRMAS-TrainingData" if name == "folder" else small_corpus
    there = pack_archive(root, tmp_path / f"{root.name}.packed", shard_mb=0.2)
    ours, theirs = (corpora.read(spec_of(name, place)) for place in (there, root))
    assert manifest.digest(ours) == manifest.digest(theirs)
    pd.testing.assert_frame_equal(ours.drop(columns="uri"), theirs.drop(columns="uri"))  # the corpus's name, too
    assert [u.removeprefix(str(there)) for u in ours["uri"]] == [u.removeprefix(str(root)) for u in theirs["uri"]]
    assert type(corpora.recognise(there)) is type(corpora.recognise(root))


def test_equal_files_of_two_archives(tmp_path: Path) -> None:
    """They are twins below one folder of packs' sound, and nobody else's shard is touched."""
    for name in ("one", "two"):
        write(tmp_path / name / "x.wav", sound(1.0))
        write(tmp_path / name / "own.wav", sound(1.0, 300 if name == "one" else 500))
    one, two = (pack_archive(tmp_path / name, tmp_path / f"{name}.packed") for name in ("one", "two"))
    assert places.identity(one / "x.wav") == places.identity(two / "x.wav")
    named = tmp_path / "both.txt"
    named.write_text("".join(f"{path}\n" for path in (one / "x.wav", one / "own.wav", two / "own.wav", two / "x.wav")))
    make_work(named, tmp_path / "out", SPEC)
    twins = {row["uri"]: row["twin"] for row in listing.rows(tmp_path / "out" / listing.FILES) if row["twin"]}
    assert twins == {str(two / "x.wav"): str(one / "x.wav")}
    assert (one / "own.wav").read_bytes() != (two / "own.wav").read_bytes()


def overwrite(shard: Path) -> None:
    with shard.open("r+b") as file:
        file.seek(600)
        file.write(b"rot")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "other bytes lie in": overwrite,
    "ends .* bytes too early": lambda shard: os.truncate(shard, 700),
    "nothing is there": lambda shard: shard.unlink(),
}


@pytest.mark.parametrize("told", DAMAGE)
def test_a_damaged_shard_costs_its_members_a_status(told: str, tmp_path: Path) -> None:
    for k in range(4):
        write(tmp_path / f"archive/{k}.wav", sound(1.0, 300 + 40 * k))
    packed = pack_archive(tmp_path / "archive", tmp_path / "archive.packed", shard_mb=0.03)
    assert len(shards_of(packed)) == 4
    DAMAGE[told](shards_of(packed)[1])
    found = statuses(packed, tmp_path / "tags")
    assert found == {"0.wav": "tagged", "1.wav": "unreadable", "2.wav": "tagged", "3.wav": "tagged"}
    with pytest.raises(ObjectError, match=f"^{packed}/1.wav .*{told}.*part-00001.tar|part-00001.tar.*{told}"):
        (packed / "1.wav").read_bytes()
    assert [row for row in corpora_of(packed) if not row] == [""]  # the manifest's hash of what cannot be had


def corpora_of(packed: Path) -> list[str]:
    clips = [manifest.Clip(path, ["a"], path.name) for path in packed.rglob("*.wav")]
    return list(manifest.make(clips, "x", packed)["sha256"])


@pytest.mark.parametrize("how", ["longer", "shorter", "same size", "gone"])
def test_a_file_that_changes_after_it_was_listed_is_not_packed(how: str, tmp_path: Path) -> None:
    for k in range(3):
        write(tmp_path / f"archive/{k}.wav", sound(0.1))
    path, content = tmp_path / "archive/1.wav", (tmp_path / "archive/1.wav").read_bytes()
    entries = packs.list_entries(tmp_path / "archive")
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes({"longer": content + b"x", "shorter": content[:-1], "same size": content[::-1]}[how])
        os.utime(path, (7, 7))
    with pytest.raises(DataError, match=r"/1.wav has changed or gone since the archive was listed; when nothing"):
        packing.write_shard(tmp_path / "archive", 0, entries, tmp_path / "x.tar", skip=True)


def test_a_file_that_cannot_be_read_fails_the_job_or_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(3):
        write(tmp_path / f"archive/{k}.wav", sound(0.1, 300 + 40 * k))
    expected = files_of(tmp_path / "archive")
    honest = packing._from_disk

    def broken(path: Path, n_bytes: int) -> Iterator[bytes]:
        content = b"".join(honest(path, n_bytes))
        yield content[: n_bytes // 2]
        if path.name == "1.wav":
            raise OSError(errno.EIO, "Input/output error")
        yield content[n_bytes // 2 :]

    monkeypatch.setattr(packing, "_from_disk", broken)
    with pytest.raises(DataError, match=r"/1.wav cannot be read: .*; mend it, or leave out .* --skip-unreadable"):
        pack_archive(tmp_path / "archive", tmp_path / "x.packed", shard_mb=1)
    assert not shards_of(tmp_path / "x.packed")
    made = pack_archive(tmp_path / "archive", tmp_path / "x.packed", shard_mb=1, skip=True)
    assert dict(unpacked(made)) == {name: expected[name] for name in ("0.wav", "2.wav")}
    assert (made / "2.wav").read_bytes() == expected["2.wav"]
    rows = packs.left_out(pq.read_table(tmp_path / "x.packed" / INDEX))
    assert [name for name, _ in rows] == ["1.wav"] and "Input/output error" in rows[0][1]


def test_names_that_no_index_may_hold_are_refused_or_left_out(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    write(tmp_path / "archive/a.wav", sound(0.1))
    shutil.copy(tmp_path / "archive/a.wav", os.fsencode(tmp_path / "archive") + b"/caf\xe9.wav")
    entries = packs.list_entries(tmp_path / "archive")
    with pytest.raises(DataError, match=r"1 files cannot be packed, the first is caf\\xe9.wav: its name is not in UTF"):
        pack._refuse(entries, skip=False)
    pack._refuse(entries, skip=True)
    made = pack_archive(tmp_path / "archive", tmp_path / "x.packed")
    assert [name for name, _ in unpacked(made)] == ["a.wav"]
    assert not (made / "caf\\xe9.wav").exists()
    (tmp_path / "archive" / "caf\\xe9.wav").write_text("so called")
    with pytest.raises(DataError, match=r"two files under .* would both be called caf\\xe9.wav; rename one"):
        packs.list_entries(tmp_path / "archive")


@pytest.mark.parametrize(
    "name", ["../secret.wav", "/etc/passwd", "a/../../b.wav", "a//b.wav", "./a.wav", "..", "a\0b", ""]
)
def test_an_index_that_leads_out_is_refused(name: str, packed: Path, tmp_path: Path) -> None:
    copy = remade(packed, tmp_path)
    table = pq.read_table(copy / INDEX)
    names = [name, *table["name"].to_pylist()[1:]]
    pq.write_table(table.set_column(0, "name", pa.array(names)), copy / INDEX)
    with pytest.raises(DataError, match="which leads out of the pack; do not use this pack"):
        list(sources.archive(places.located(copy)).files())


def test_an_index_out_of_order_or_without_columns_is_refused(packed: Path, tmp_path: Path) -> None:
    copy = remade(packed, tmp_path)
    table = pq.read_table(copy / INDEX)
    spoilt = {
        "its rows are out of order": table.take(list(reversed(range(len(table))))),
        "cannot be read|no index of a pack": table.drop_columns(["offset"]),
    }
    for told, content in spoilt.items():
        pq.write_table(content, copy / INDEX)
        with pytest.raises(DataError, match=told):
            places.located(copy).is_dir()


def test_a_pack_that_is_not_finished_is_refused(packed: Path, tmp_path: Path) -> None:
    copy = remade(packed, tmp_path)
    (copy / parts.DONE).unlink()
    for read in (lambda: sources.archive(places.located(copy)), lambda: corpora.read(spec_of("folder", copy))):
        with pytest.raises(
            DataError, match=r"found one that is not finished \(it has no _SUCCESS\); the same jobs/pack"
        ):
            read()
    parts.finish(copy)
    assert places.located(copy).is_dir()  # a refusal is not remembered


def test_a_folder_that_is_named_as_a_pack_and_is_none(tmp_path: Path) -> None:
    """Named itself it is refused; deep in an archive it costs its files a status."""
    write(tmp_path / "archive/no.packed/a.wav", sound(1.0))
    write(tmp_path / "archive/b.wav", sound(1.0))
    with pytest.raises(DataError, match=r"expected a pack at .*/no.packed, found none; .* must not be named \*.packed"):
        list(sources.archive(places.located(tmp_path / "archive/no.packed")).files())
    assert statuses(tmp_path / "archive", tmp_path / "tags") == {"b.wav": "tagged", "no.packed/a.wav": "unreadable"}


@pytest.mark.parametrize(
    ("archive", "out", "told"),
    [
        ("a", "a.pack", "expected a name that ends with .packed"),
        ("a", "x.packed/y", "expected a name that ends with .packed"),
        ("a", "a/a.packed", "which would pack itself"),
        ("x.packed", "y.packed", "is packed already"),
        ("nowhere", "y.packed", "found nothing"),
        ("a/f.txt", "y.packed", "found a file"),
        ("a/empty", "y.packed", "found none"),
    ],
)
def test_what_cannot_be_packed(archive: str, out: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "a/empty").mkdir(parents=True)
    (tmp_path / "a/f.txt").write_text("x")
    place = places.located(tmp_path / archive)
    with pytest.raises(InstrunetError, match=told):
        pack.check(place, pack.folder_of(str(tmp_path / out)), 1)
        packs.list_entries(place)


def test_nothing_else_is_written_into_a_pack(packed: Path) -> None:
    for folder in (packed, packed / "tags"):
        with pytest.raises(ConfigError, match="a pack is written by jobs/pack.py alone"):
            parts.claim(folder, {"job": "tag"})
        with pytest.raises(ConfigError, match="a pack is written by jobs/pack.py alone"):
            places.need_disk(folder, "training")


def test_rows_that_are_not_of_their_shard_are_found(tmp_path: Path) -> None:
    for k in range(3):
        write(tmp_path / f"archive/{k}.wav", sound(0.1))
    out = Path(str(pack_archive(tmp_path / "archive", tmp_path / "x.packed", shard_mb=0.003)))
    os.truncate(parts.part_path(out, SHARDS, 1, ".tar"), 100)
    with pytest.raises(JobError, match=r"part-00001.tar should have \d+ bytes, it has 100; remove it and run the same"):
        packs.close(out, 3)


def test_a_killed_pack_goes_on_and_is_the_same(archive: Path, packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "archive.packed"
    entries = packs.list_entries(archive)
    parts.claim(out, pack.plan_of(archive, entries, 50_000))
    packs.save_files(entries, 50_000, out / packs.FILES)
    worker = pack.Worker(str(out), str(archive), False)
    worker.make(1)
    parts.write_aside(parts.part_path(out, packs.ROWS, 2), lambda aside: packs.save_rows([], aside))  # and then killed
    pack_archive(archive, out)
    assert [p.read_bytes() for p in shards_of(out)] == [p.read_bytes() for p in shards_of(packed)]
    assert pq.read_table(out / INDEX).equals(pq.read_table(Path(str(packed)) / INDEX))


def test_features_of_a_packed_corpus_are_those_of_the_corpus(
    tmp_path: Path, small_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the job makes them: parts follow the shards, and what is learnt from stands in the same order."""
    monkeypatch.setattr(features, "CLIPS_PER_PART", 5)
    there, made = pack_archive(small_folder, tmp_path / "FOLDER.packed", shard_mb=0.2), []
    for k, root in enumerate((small_folder, there)):
        frame = corpora.read(spec_of("csv", root)).assign(split="train")
        monkeypatch.setattr(features, "run_parts", in_process)
        monkeypatch.setattr(features.cluster, "connect", lambda *_, **__: None)
        made.append(features.prepare(frame, features.Recipe(FRONT), tmp_path / f"f{k}", ClusterSpec(), 0.0, False))
    assert made[0].name == made[1].name
    plain, packed = (shards.load(folder, FRONT, "train") for folder in made)
    np.testing.assert_array_equal(packed.values["logmel"], plain.values["logmel"])
    uris = [uri.replace(str(there), str(small_folder)) for uri in packed.clips["uri"]]
    assert packed.clips | {"uri": uris} == plain.clips
    rows = pq.read_table(made[1] / "manifest.parquet")["uri"].to_pylist()
    assert rows == sorted(rows)
    ours, theirs = (features.statistics(folder) for folder in (made[1], made[0]))
    assert ours.mean["logmel"] == pytest.approx(theirs.mean["logmel"], rel=1e-12)


def test_a_folder_to_score_may_be_packed(tmp_path: Path, small_folder: Path) -> None:
    made = pack_archive(small_folder, tmp_path / "FOLDER.packed", shard_mb=1)
    args = argparse.Namespace(bundle=Path("bundle"), target=str(made), overrides=[])
    cli._check_bundle(args)
    ours, theirs = (sides.resolve(target, []).frame for target in (args.target, small_folder))
    pd.testing.assert_frame_equal(ours.drop(columns="uri"), theirs.drop(columns="uri"))


def in_process(folder: Path, kind: str, n_parts: int, worker: Any, arguments: Any) -> Iterator[dict[str, Any]]:
    """What Ray does."""
    made = worker(**arguments)
    for number in parts.left(folder, kind, n_parts):
        yield made({"part": number})
    made.decoder.close()


def test_sound_is_a_whole_copy_that_goes(packed: Path, archive: Path) -> None:
    with places.sound(f"{packed}/a.wav") as path:
        assert path.read_bytes() == (archive / "a.wav").read_bytes() and path.suffix == ".wav"
    assert not path.exists()
