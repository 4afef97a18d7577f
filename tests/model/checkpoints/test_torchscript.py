"""TorchScript archives: their tensors are read without running them, and hostile ones are refused."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from limner.model.checkpoints.torchscript import pack_tensors, read_torchscript
from limner.readers.errors import ModelError
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")

Change = Callable[[str, bytes], bytes | None]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 2, 3), nn.Sequential(nn.InstanceNorm3d(2), nn.Conv3d(2, 1, 1, bias=False)))


@pytest.fixture(scope="module")
def archive(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torchscript") / "network.pt"
    torch.jit.trace(network, torch.zeros(1, 1, 5, 5, 5)).save(path)  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
    return path


def rewrite(archive: Path, to: Path, change: Change) -> Path:
    """The archive with its members changed; None leaves one out."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(to, "w") as target:
        for name in source.namelist():
            content = change(name.partition("/")[2], source.read(name))
            if content is not None:
                target.writestr(name, content)
    return to


@pytest.mark.slow
def test_tensors_are_those_of_the_state_dict(archive: Path, network: nn.Module) -> None:
    found = read_torchscript(archive, "network test")
    expected = network.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_half_precision_stays(tmp_path: Path) -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(3.0).half())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    torch.jit.script(Held()).save(tmp_path / "half.pt")  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
    from safetensors.numpy import load

    [value] = load(pack_tensors(str(tmp_path / "half.pt"), "network test").tobytes()).values()
    assert value.dtype == np.float16
    assert value.tolist() == [0, 1, 2]


class _Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("exit",)


def _foreign(name: str, content: bytes) -> bytes:
    return pickle.dumps(_Hostile(), protocol=2) if name == "data.pkl" else content


def _builtin(name: str, content: bytes) -> bytes:
    return b"cbuiltins\neval\n(X\x03\x00\x00\x001+1tR." if name == "data.pkl" else content


def _short(name: str, content: bytes) -> bytes:
    return content[:-4] if name == "data/0" else content


def _no_tensor(name: str, content: bytes) -> bytes | None:
    return None if name == "data/0" else content


def _no_pickle(name: str, content: bytes) -> bytes | None:
    return None if name == "data.pkl" else content


def _no_module(name: str, content: bytes) -> bytes:
    return pickle.dumps({"weight": 1}, protocol=2) if name == "data.pkl" else content


def _cut(name: str, content: bytes) -> bytes:
    return content[: len(content) // 2] if name == "data.pkl" else content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_foreign, "it asks for (posix|nt).system"),
        (_builtin, "it asks for builtins.eval"),
        (_short, "numbers of 54"),
        (_no_tensor, "KeyError"),
        (_no_pickle, "ValueError"),
        (_no_module, "it holds no tensors"),
        (_cut, "must be a whole TorchScript archive"),
    ],
)
def test_hostile_and_damaged_archives_are_refused(archive: Path, tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        pack_tensors(str(rewrite(archive, tmp_path / "changed.pt", change)), "network test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (2, 100), (100, 1)), "needs more than"),
        ((-1, (2,), (1,)), "needs more than"),
        ((0, (-2, 2), (2, 1)), "needs more than"),
        ((0, (1000, 1000), (0, 0)), "has the strides"),
        ((0, (2, 3), (1, 2)), "has the strides"),
    ],
)
def test_tensors_that_do_not_fit_their_storage_are_refused(
    archive: Path, tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            return ("storage", torch.FloatStorage, "0", "cpu", 54) if obj is arguments else None

    class Tensor:
        def __reduce__(self) -> tuple[object, ...]:
            from torch._utils import _rebuild_tensor_v2

            return _rebuild_tensor_v2, (arguments, *arguments, False, {})

    out = io.BytesIO()
    Pickler(out, protocol=2).dump(Tensor())
    changed = rewrite(archive, tmp_path / "x.pt", lambda name, data: out.getvalue() if name == "data.pkl" else data)
    with pytest.raises(ModelError, match=message):
        pack_tensors(str(changed), "network test")


def test_other_files_are_refused(tmp_path: Path, archive: Path) -> None:
    cut = tmp_path / "cut.pt"
    cut.write_bytes(archive.read_bytes()[:-100])
    for path in (cut, tmp_path / "absent.pt"):
        with pytest.raises(ModelError):
            pack_tensors(str(path), "network test")


@pytest.mark.slow
def test_what_ends_the_sandboxed_process_is_a_model_error(archive: Path, tmp_path: Path) -> None:
    bomb = b"X\x01\x00\x00\x00a" + b"r\xff\xff\xff\x7f."  # a memo of two thousand million places
    changed = rewrite(archive, tmp_path / "x.pt", lambda name, data: bomb if name == "data.pkl" else data)
    with pytest.raises(ModelError, match="TorchScript archive"):
        read_torchscript(changed, "network test")
