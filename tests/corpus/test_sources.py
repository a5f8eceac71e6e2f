"""The real clients fetch: only pinned bytes are kept, and every failure is one line with a remedy."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from archive_makers import deb_bytes, make_wheel, tar_bytes
from ponderttt.corpus.packages import Package
from ponderttt.corpus.sources import fetch_package, fetch_packages
from ponderttt.errors import PonderTTTError

# A closed port: a connection is refused at once.
NOWHERE = "http://127.0.0.1:9"
METADATA = b"Metadata-Version: 2.1\nName: tiny-pond\nVersion: 1.0\nRequires-Python: >=3.99\n"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pinned(kind: str, archive: str, digest: str, package: str = "tiny-pond", version: str = "1.0") -> Package:
    return Package("Python", "train", package, version, kind, "MIT", digest, archive)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".apt")


@pytest.fixture
def wheel_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that replaces pip's index; the pure wheel is pinned, pip prefers the other."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for tag in ("py3-none-any", "py3-none-manylinux2014_x86_64"):
        make_wheel(
            folder / f"tiny_pond-1.0-{tag}.whl",
            {
                "tiny_pond.py": f"TAG = '{tag}'\n".encode(),
                "tiny_pond-1.0.dist-info/METADATA": METADATA,
                "tiny_pond-1.0.dist-info/WHEEL": f"Wheel-Version: 1.0\nTag: {tag}\n".encode(),
            },
        )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.parametrize("tag", ["py3-none-any", "py3-none-manylinux2014_x86_64"])
def test_exactly_the_pinned_wheel_is_fetched_whatever_python_it_asks_for(
    tmp_path: Path, wheel_index: Path, tag: str
) -> None:
    name = f"tiny_pond-1.0-{tag}.whl"
    cache = tmp_path / "cache"
    path = fetch_package(pinned("wheel", name, sha256(wheel_index / name)), cache)
    assert path == cache / name
    assert path.read_bytes() == (wheel_index / name).read_bytes()
    assert visible(cache) == [name]


def test_a_wrong_sha256_names_both_digests_and_keeps_nothing(tmp_path: Path, wheel_index: Path) -> None:
    name = "tiny_pond-1.0-py3-none-any.whl"
    cache = tmp_path / "cache"
    with pytest.raises(PonderTTTError) as caught:
        fetch_package(pinned("wheel", name, "f" * 64), cache)
    assert sha256(wheel_index / name) in str(caught.value)
    assert "f" * 64 in str(caught.value)
    assert "\n" not in str(caught.value)
    assert visible(cache) == []


def test_an_archive_at_hand_needs_no_network_and_a_damaged_one_is_replaced(
    tmp_path: Path, wheel_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "tiny_pond-1.0-py3-none-any.whl"
    good = (wheel_index / name).read_bytes()
    package = pinned("wheel", name, sha256(wheel_index / name))
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / name).write_bytes(good[:-1])
    fetch_package(package, cache)
    assert (cache / name).read_bytes() == good
    shutil.rmtree(wheel_index)
    assert fetch_package(package, cache) == cache / name


def test_many_packages_come_in_the_order_of_the_list_and_are_counted(tmp_path: Path) -> None:
    packages = []
    for name in ("c", "a", "b"):
        path = make_wheel(tmp_path / f"{name}-1-py3-none-any.whl", {f"{name}.py": name.encode()})
        packages.append(pinned("wheel", path.name, sha256(path), name))
    seen: list[tuple[int, int, str]] = []
    paths = fetch_packages(packages, tmp_path, progress=lambda *step: seen.append(step))
    assert [path.name[0] for path in paths] == ["c", "a", "b"]
    assert seen == [(1, 3, "c==1.0"), (2, 3, "a==1.0"), (3, 3, "b==1.0")]


def test_a_version_that_the_index_lacks_is_one_line(tmp_path: Path, wheel_index: Path) -> None:
    package = pinned("wheel", "tiny_pond-9.9-py3-none-any.whl", "f" * 64, version="9.9")
    with pytest.raises(PonderTTTError, match=r"tiny-pond==9\.9: the package index has no") as caught:
        fetch_packages([package], tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_without_a_network_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{NOWHERE}/simple")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("npm_config_registry", NOWHERE)
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    offline = {"wheel": "the package index cannot be reached. Check the network"}
    offline["npm"] = (
        "npm registry cannot be reached. Check the network" if shutil.which("npm") else "not installed"
    )
    for kind, archive in (("wheel", "tiny_pond-1.0-py3-none-any.whl"), ("npm", "tiny-pond-1.0.tgz")):
        with pytest.raises(PonderTTTError, match="tiny-pond") as caught:
            fetch_package(pinned(kind, archive, "f" * 64), tmp_path / "cache")
        assert offline[kind] in str(caught.value)
        assert "\n" not in str(caught.value)
    assert visible(tmp_path / "cache") == []


@pytest.mark.parametrize(("kind", "tool"), [("npm", "npm"), ("debian", "apt-get")])
def test_a_missing_client_is_named_with_the_way_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, tool: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PonderTTTError, match=f"{tool} is not installed.*put tiny_1.deb into"):
        fetch_package(pinned(kind, "tiny_1.deb", "f" * 64), tmp_path / "cache")


@pytest.fixture
def debian_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Debian mirror in a folder that apt uses, with one binary and one source package."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    control = b"Package: tiny-pond\nVersion: 1.0-2\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: t\n"
    deb = mirror / "tiny-pond_1.0-2_all.deb"
    deb.write_bytes(
        deb_bytes(tar_bytes({"./usr/a.go": b"package a\n"}), "data.tar.gz", tar_bytes({"./control": control}))
    )
    entry = control.decode() + f"Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sha256(deb)}\n"
    (mirror / "Packages").write_text(entry)
    source = mirror / "tiny-src_1.0.orig.tar.xz"
    source.write_bytes(tar_bytes({"tiny/A.java": b"class A {}\n"}, "w:xz"))
    dsc = mirror / "tiny-src_1.0-7.dsc"
    dsc.write_text("Format: 3.0 (quilt)\nSource: tiny-src\nVersion: 1.0-7\n")
    files = [dsc, source]
    md5 = "".join(f" {hashlib.md5(f.read_bytes()).hexdigest()} {f.stat().st_size} {f.name}\n" for f in files)
    sha = "".join(f" {sha256(f)} {f.stat().st_size} {f.name}\n" for f in files)
    (mirror / "Sources").write_text(
        "Package: tiny-src\nBinary: tiny\nVersion: 1.0-7\nMaintainer: T <t@example.org>\nArchitecture: all\n"
        f"Format: 3.0 (quilt)\nDirectory: .\nFiles:\n{md5}Checksums-Sha256:\n{sha}\n"
    )
    sources = tmp_path / "tiny.list"
    sources.write_text(f"deb [trusted=yes] file:{mirror} ./\n")
    settings = tmp_path / "apt.conf"
    # apt would otherwise read as a user without access to a test's folders.
    settings.write_text(
        f'Dir::Etc::SourceList "{sources}";\nDir::Etc::SourceParts "/dev/null";\nAPT::Sandbox::User "root";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(settings))
    return mirror


def test_debian_packages_and_sources_come_without_touching_the_systems_lists(
    tmp_path: Path, debian_mirror: Path
) -> None:
    cache = tmp_path / "cache"
    deb, source = debian_mirror / "tiny-pond_1.0-2_all.deb", debian_mirror / "tiny-src_1.0.orig.tar.xz"
    wanted = [
        pinned("debian", deb.name, sha256(deb), version="1.0-2"),
        pinned("debian", source.name, sha256(source), package="tiny-src"),
    ]
    if shutil.which("apt-get") is None:
        with pytest.raises(PonderTTTError, match="apt-get is not installed"):
            fetch_packages(wanted, cache)
        return
    assert [path.name for path in fetch_packages(wanted, cache)] == [deb.name, source.name]
    assert visible(cache) == sorted([deb.name, source.name])
    missing = pinned("debian", "tiny-pond_3.0_all.deb", "f" * 64, version="3.0")
    with pytest.raises(
        PonderTTTError, match=r"this machine have no tiny-pond_3.0_all.deb.*Put that file into"
    ):
        fetch_package(missing, cache)
