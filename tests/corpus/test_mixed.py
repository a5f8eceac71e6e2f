"""Mixed streams are whole segments of named parts, one after the other, with every boundary recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archive_makers import make_wheel
from ponderttt.corpus.chunks import build_chunks, chunk_facts, read_chunks
from ponderttt.corpus.mixed import build_mixed_chunks
from ponderttt.corpus.shards import build_shards
from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import sha256_file
from ponderttt.settings.corpus import Content, CorpusConfig

REBUILD = "snakemake mixed_chunks"
SIZE, SEGMENT = 32, 2
HEADER = "language,split,package,version,registry_kind,license,sha256,archive"


@dataclass(frozen=True)
class World:
    """Chunks of four corpora, each with the code, generated code, documentation or data of the same four packages."""

    folders: dict[str, Path]
    tokenizer: Any

    def mix(self, folder: Path, parts: Mapping[str, Sequence[str]] | None = None, **changes: int) -> Path:
        sizes = {"streams": 3, "chunks": 8, "segment_chunks": SEGMENT, "span_seed": 0, **changes}
        parts = parts or {name: [name] for name in self.folders}
        build_mixed_chunks("mixed", "Python", parts, self.folders, self.tokenizer, output_dir=folder, **sizes)
        return folder


def numbers(count: int, start: int) -> str:
    """Lines of JSON that differ between packages."""
    return json.dumps([{"number": n, "square": n * n} for n in range(start, start + count)], indent=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, code_files: list[Path], tokenizer: Any) -> World:
    top = tmp_path_factory.mktemp("mixed")
    rows = []
    for number in range(4):
        code = [path.read_text() for path in code_files[4 * number : 4 * number + 4]]
        prose = "\n".join(line for line in code[3].splitlines() if line.strip())
        wheel = make_wheel(
            top / f"pond{number}-1.0-py3-none-any.whl",
            {
                f"pond{number}/a.py": code[0].encode(),
                f"pond{number}/b.py": code[1].encode(),
                f"pond{number}/c_pb2.py": code[2].encode(),
                "README.md": prose.encode(),
                "table.json": numbers(60, 1_000 * number).encode(),
            },
        )
        rows.append(f"Python,heldout,pond{number},1.0,wheel,MIT,{sha256_file(wheel)},{wheel.name}")
    (top / "packages.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    folders = {}
    contents: tuple[Content, ...] = ("code", "generated", "documentation", "data")
    for content in contents:
        config = CorpusConfig(
            "wheel", "Python", "heldout", packages=str(top / "packages.csv"), content=content
        )
        build_shards(config, content, top, top / f"shards-{content}")
        folders[content] = top / content
        build_chunks(top / f"shards-{content}", tokenizer, SIZE, folders[content], 4, span_seed=0)
    return World(folders, tokenizer)


def test_each_corpus_takes_its_own_files_of_the_same_packages(world: World) -> None:
    ends = {
        "code": ("a.py", "b.py"),
        "generated": ("c_pb2.py",),
        "documentation": (".md",),
        "data": (".json",),
    }
    for content, folder in world.folders.items():
        streams = read_chunks(folder, REBUILD)
        assert len(streams) == 4
        assert all(path.endswith(ends[content]) for stream in streams for path in stream.document_paths)


def test_every_segment_is_the_start_of_the_stream_that_the_manifest_names(
    world: World, tmp_path: Path
) -> None:
    folder = world.mix(tmp_path)
    facts, streams = chunk_facts(folder, REBUILD), read_chunks(folder, REBUILD)
    sources = {
        (name, stream.stream_id): stream
        for name, part in world.folders.items()
        for stream in read_chunks(part, REBUILD)
    }
    assert facts["streams"] == {f"mixed-{n}": 8 for n in range(3)}
    length = SEGMENT * SIZE
    for stream in streams:
        segments = facts["segments"][stream.stream_id]
        assert [s["start"] for s in segments] == [0, length, 2 * length, 3 * length]
        assert [s["chunk"] for s in segments] == [0, 2, 4, 6]
        assert sorted(s["part"] for s in segments) == sorted(world.folders)
        assert stream.mask.all()
        read, targets = stream.input_ids.reshape(-1), stream.targets.reshape(-1)
        assert np.array_equal(read[1:], targets[:-1])
        for place, segment in enumerate(segments):
            source = sources[segment["corpus"], segment["source"]].input_ids.reshape(-1)[:length]
            here = read[place * length : (place + 1) * length]
            last = place == len(segments) - 1
            assert np.array_equal(here[: length if last else -1], source[: length if last else -1])
            if not last:
                assert here[-1] == world.tokenizer.eot_id
        # Every segment begins with a document, and paths name their corpus and package.
        starts = dict(zip(stream.document_starts.tolist(), stream.document_paths, strict=True))
        for segment in segments:
            assert starts[segment["start"]].startswith(f"{segment['corpus']}/{segment['source']}/")


def test_bytes_are_those_of_the_scored_tokens(world: World, tmp_path: Path) -> None:
    for stream in read_chunks(world.mix(tmp_path), REBUILD):
        for chunk, n_bytes in zip(stream.targets, stream.n_bytes, strict=True):
            assert sum(world.tokenizer.token_bytes(chunk.tolist())) == n_bytes


def test_no_source_is_used_twice_and_no_package_twice_in_one_stream(world: World, tmp_path: Path) -> None:
    table = chunk_facts(world.mix(tmp_path), REBUILD)["segments"]
    used = [(s["corpus"], s["source"]) for segments in table.values() for s in segments]
    assert len(used) == len(set(used)) == 12
    for segments in table.values():
        assert len({s["source"] for s in segments}) == 4


def test_a_seed_gives_the_same_streams_and_another_one_others(world: World, tmp_path: Path) -> None:
    tables = [
        chunk_facts(world.mix(tmp_path / name, span_seed=seed), REBUILD)["segments"]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert tables[0] == tables[1] != tables[2]
    orders = {tuple(s["part"] for s in segments) for segments in tables[0].values()}
    assert len(orders) > 1, "streams change between parts in different orders"


def test_a_stream_longer_than_its_parts_begins_again_with_the_first(world: World, tmp_path: Path) -> None:
    parts = {"code": ["code", "generated"], "prose": ["documentation"]}
    table = chunk_facts(world.mix(tmp_path, parts, streams=1), REBUILD)["segments"]
    for segments in table.values():
        first, second = segments[0]["part"], segments[1]["part"]
        assert first != second
        assert [s["part"] for s in segments] == [first, second, first, second]


def test_a_part_with_too_few_long_streams_is_one_line_that_names_it(world: World, tmp_path: Path) -> None:
    message = r"corpus mixed: its part data has 4 streams of at least 65 tokens, too few for 5 mixed streams\. Lower"
    with pytest.raises(PonderTTTError, match=message) as caught:
        world.mix(tmp_path, {"data": ["data"]}, streams=5, chunks=2)
    assert "\n" not in str(caught.value)
    with pytest.raises(PonderTTTError, match="its part data has 0 streams of at least 161 tokens"):
        world.mix(tmp_path, {"data": ["data"]}, segment_chunks=5, chunks=5)
    assert not list(tmp_path.iterdir())
