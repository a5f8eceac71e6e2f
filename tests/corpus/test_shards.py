"""Shards of folders, checkouts and packages are reproducible, verified, and complete or absent."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from archive_makers import make_wheel
from ponderttt.corpus.drops import write_drop_report
from ponderttt.corpus.files import COLUMNS, SourceFile
from ponderttt.corpus.shard_files import read_shards, shards_digest, write_shards
from ponderttt.corpus.shards import build_shards
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.manifest import write_manifest
from ponderttt.settings.corpus import CorpusConfig, FilterConfig
from small_disk import small_disk

REBUILD = "snakemake shards"


def make_checkout(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


@pytest.fixture
def checkout(tmp_path: Path, code_files: list[Path]) -> Path:
    """A checkout with six good files, a copy of one, a vendored one and an empty one."""
    files = {f"src/{path.name}": path.read_text() for path in code_files[:6]}
    files["src/zz_copy.py"] = code_files[0].read_text()
    files["vendor/other.py"] = code_files[7].read_text()
    files["src/__init__.py"] = ""
    files["README.md"] = "# readme"
    return make_checkout(tmp_path / "pond", files)


def folder_corpus(path: Path, **changes: object) -> CorpusConfig:
    settings = {
        "kind": "files",
        "language": "Python",
        "split": "heldout",
        "path": str(path),
        "license": "MIT",
    }
    return CorpusConfig(**{**settings, **changes})  # type: ignore[arg-type]


def test_a_checkout_becomes_shards_with_every_column_and_every_drop_counted(
    tmp_path: Path, checkout: Path, code_files: list[Path]
) -> None:
    facts = build_shards(folder_corpus(checkout), "mine", tmp_path, tmp_path / "shards")
    files = read_shards(tmp_path / "shards", REBUILD)
    assert [file.path for file in files] == sorted(f"src/{path.name}" for path in code_files[:6])
    assert {(f.repo_name, f.split, f.source, f.license_type) for f in files} == {
        ("pond", "heldout", "files:pond", "permissive")
    }
    for file in files:
        assert hashlib.sha1(file.content.encode()).hexdigest() == file.blob_id
    counts = {reason: count["files"] for reason, count in facts["drops"].items()}
    assert counts == {"vendored": 1, "empty": 1, "other_language": 1, "exact_duplicate": 1}
    assert facts["kept"] == {"files": 6, "bytes": sum(file.length_bytes for file in files)}
    assert facts["licenses"] == {"MIT": 6}
    manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
    assert manifest["facts"] == json.loads(json.dumps(facts))
    assert manifest["files"]["shard-00000.parquet"]["rows"] == 6


def test_the_columns_are_those_of_the_data_contract(tmp_path: Path, checkout: Path) -> None:
    import pyarrow.parquet as pq

    build_shards(folder_corpus(checkout), "mine", tmp_path, tmp_path / "shards")
    shard = pq.ParquetFile(tmp_path / "shards" / "shard-00000.parquet")
    assert tuple(shard.schema_arrow.names) == COLUMNS
    assert shard.metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, checkout: Path) -> None:
    for name in ("first", "second"):
        build_shards(folder_corpus(checkout), "mine", tmp_path, tmp_path / name)
    assert shards_digest(tmp_path / "first", REBUILD) == shards_digest(tmp_path / "second", REBUILD)


def test_a_pinned_list_becomes_shards_without_a_network(
    tmp_path: Path, code_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    lines = ["language,split,package,version,registry_kind,license,sha256,archive"]
    for index, name in enumerate(("zeta", "alpha", "closed")):
        archive = tmp_path / "archives" / f"{name}-1.0-py3-none-any.whl"
        archive.parent.mkdir(exist_ok=True)
        make_wheel(archive, {f"{name}/b.py": code_files[index].read_bytes(), f"{name}/x.png": b"\x89"})
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        license_name = "LicenseRef-Closed" if name == "closed" else "MIT"
        lines.append(f"Python,train,{name},1.0,wheel,{license_name},{digest},{archive.name}")
    (tmp_path / "packages.csv").write_text("\n".join(lines))
    config = CorpusConfig("wheel", "Python", "train", packages=str(tmp_path / "packages.csv"))
    seen: list[tuple[int, int, str]] = []
    facts = build_shards(
        config,
        "python",
        tmp_path / "archives",
        tmp_path / "shards",
        progress=lambda *step: seen.append(step),
    )
    files = read_shards(tmp_path / "shards", REBUILD)
    assert [(f.repo_name, f.source) for f in files] == [
        ("zeta", "wheel:zeta==1.0"),
        ("alpha", "wheel:alpha==1.0"),
    ]
    assert {reason: count["files"] for reason, count in facts["drops"].items()} == {
        "license": 1,
        "other_language": 3,
    }
    assert [repository["name"] for repository in facts["repositories"]] == ["zeta", "alpha", "closed"]
    assert seen[-1] == (3, 3, "read closed")


def test_each_folder_is_a_repository_when_asked_for(tmp_path: Path, code_files: list[Path]) -> None:
    top = tmp_path / "many"
    for index, name in enumerate(("b", "a", ".hidden")):
        (top / name).mkdir(parents=True)
        shutil.copy(code_files[index], top / name / "x.py")
    shutil.copy(code_files[3], top / "loose.py")
    config = folder_corpus(top, single_repository=False)
    build_shards(config, "mine", tmp_path, tmp_path / "all")
    assert [(f.repo_name, f.path) for f in read_shards(tmp_path / "all", REBUILD)] == [
        ("a", "x.py"),
        ("b", "x.py"),
        ("many", "loose.py"),
    ]
    build_shards(
        folder_corpus(top, single_repository=False, max_streams=1), "mine", tmp_path, tmp_path / "one"
    )
    assert {f.repo_name for f in read_shards(tmp_path / "one", REBUILD)} == {"a"}


def test_ignored_folders_are_no_repositories_and_names_may_hold_any_bytes(
    tmp_path: Path, code_files: list[Path]
) -> None:
    texts = {name: path.read_text() for name, path in zip(("a/x.py", "build/y.py"), code_files, strict=False)}
    top = make_checkout(tmp_path / "many", {**texts, ".gitignore": "build/\n"})
    bad = top / os.fsdecode(b"bad\xff")
    bad.mkdir()
    shutil.copy(code_files[2], bad / os.fsdecode(b"caf\xe9.py"))
    build_shards(folder_corpus(top, single_repository=False), "mine", tmp_path, tmp_path / "shards")
    assert [(f.repo_name, f.path) for f in read_shards(tmp_path / "shards", REBUILD)] == [
        ("a", "x.py"),
        (r"bad\xff", r"caf\xe9.py"),
    ]


def test_an_empty_corpus_is_an_error_that_counts_the_drops(tmp_path: Path, checkout: Path) -> None:
    config = folder_corpus(checkout, filters=FilterConfig(licenses=("Apache-2.0",)))
    with pytest.raises(PonderTTTError) as caught:
        build_shards(config, "mine", tmp_path, tmp_path / "shards")
    message = str(caught.value)
    assert "corpus mine: no file is left after the filters (license 7, empty 1," in message
    assert "\n" not in message
    assert not (tmp_path / "shards").exists()
    with pytest.raises(PonderTTTError, match=r"nowhere: no such file or folder; check the key 'path'"):
        build_shards(folder_corpus(tmp_path / "nowhere"), "mine", tmp_path, tmp_path / "shards")


def test_held_out_shards_hold_nothing_of_the_training_shards(
    tmp_path: Path, checkout: Path, code_files: list[Path]
) -> None:
    build_shards(folder_corpus(checkout, split="train"), "train", tmp_path, tmp_path / "train")
    texts = {path.name: path.read_text() for path in code_files[8:11]}
    texts["stolen.py"] = code_files[2].read_text()
    texts["adapted.py"] = code_files[3].read_text() + "\n# one more line\n"
    other = make_checkout(tmp_path / "lake", texts)
    facts = build_shards(
        folder_corpus(other), "heldout", tmp_path, tmp_path / "heldout", train_shards=[tmp_path / "train"]
    )
    assert facts["drops"]["exact_copy_of_training"]["files"] == 1
    assert facts["drops"]["near_copy_of_training"]["files"] == 1
    kept = {file.path for file in read_shards(tmp_path / "heldout", REBUILD)}
    assert kept == {path.name for path in code_files[8:11]}
    with pytest.raises(PonderTTTError, match="the repository pond is also in the training corpus"):
        build_shards(
            folder_corpus(checkout), "heldout", tmp_path, tmp_path / "x", train_shards=[tmp_path / "train"]
        )


def test_shards_are_cut_by_size_and_read_in_order(tmp_path: Path, checkout: Path) -> None:
    facts = build_shards(folder_corpus(checkout), "mine", tmp_path, tmp_path / "shards")
    files = read_shards(tmp_path / "shards", REBUILD)
    limit = max(file.length_bytes for file in files)
    write_shards(files, tmp_path / "small", facts, shard_bytes=limit)
    assert len(list((tmp_path / "small").glob("*.parquet"))) > 1
    assert read_shards(tmp_path / "small", REBUILD) == files
    # A later, smaller build removes all shards of the larger one.
    write_shards(files[:1], tmp_path / "small", facts)
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == [
        "manifest.json",
        "shard-00000.parquet",
    ]


def test_a_corrupt_shard_is_an_error_that_names_it_and_the_remedy(tmp_path: Path, checkout: Path) -> None:
    folder = tmp_path / "shards"
    facts = build_shards(folder_corpus(checkout), "mine", tmp_path, folder)
    shard = folder / "shard-00000.parquet"
    good = shard.read_bytes()
    middle = len(good) // 2
    shard.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    with pytest.raises(CorruptFileError, match=f"shard-00000.*Rebuild it: {REBUILD}"):
        read_shards(folder, REBUILD)
    # Damage before the manifest was written: Parquet must notice.
    for damaged in (b"not parquet at all", good[:middle]):
        shard.write_bytes(damaged)
        write_manifest(folder, "shards", {shard.name: 6}, facts)
        with pytest.raises(CorruptFileError, match=f"shard-00000.*Rebuild it: {REBUILD}") as caught:
            read_shards(folder, REBUILD)
        assert "\n" not in str(caught.value)
    (folder / "manifest.json").unlink()
    with pytest.raises(CorruptFileError, match="was never finished"):
        read_shards(folder, REBUILD)


def test_shards_of_another_version_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "shard-00000.parquet")
    write_manifest(tmp_path, "shards", {"shard-00000.parquet": 1})
    with pytest.raises(CorruptFileError, match="columns of another version"):
        read_shards(tmp_path, REBUILD)


def test_a_full_disk_is_one_line_and_leaves_the_old_shards_whole(tmp_path: Path) -> None:
    def files(count: int, length: int) -> list[SourceFile]:
        texts = [os.urandom(length).hex() for _ in range(count)]
        return [SourceFile(*["x"] * 6, ("MIT",), "UTF-8", len(text), text, "x", "x") for text in texts]

    folder, before = tmp_path / "disk", files(2, 1_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with small_disk(folder, kilobytes=1_024) as real:
        write_shards(before, folder, {})
        if not real:  # a limit on the size of files has the same effect
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        try:
            with pytest.raises(PonderTTTError) as caught:
                write_shards(files(40, 50_000), folder, {}, shard_bytes=500_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        message = str(caught.value)
        assert message.startswith(f"{folder}: the disk is full; nothing was written.") and "\n" not in message
        assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "shard-00000.parquet"]
        assert read_shards(folder, REBUILD) == before


def test_the_drop_report_covers_several_corpora(tmp_path: Path, checkout: Path) -> None:
    for name in ("one", "two"):
        build_shards(folder_corpus(checkout), name, tmp_path, tmp_path / name)
    rows = write_drop_report(tmp_path / "drops.csv", [tmp_path / "one", tmp_path / "two"], REBUILD)
    with (tmp_path / "drops.csv").open() as handle:
        written = list(csv.DictReader(handle))
    assert [row["corpus"] for row in written] == ["one"] * 5 + ["two"] * 5
    assert written[0] == {"corpus": "one", "reason": "kept", "files": "6", "bytes": str(rows[0].bytes)}
    with pytest.raises(CorruptFileError, match="never finished"):
        write_drop_report(tmp_path / "drops.csv", [tmp_path / "three"], REBUILD)
