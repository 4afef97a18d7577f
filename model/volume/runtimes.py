"""Networks in files that say how they compute, run on patches: ONNX, and TorchScript, which is a program."""

# torch's types do not cover scripts:
# pyright: reportUnknownMemberType=false

import io
import warnings
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from ...readers.errors import ModelError
from ..checkpoints import onnx
from ..checkpoints.cards import shipped_digests
from ..checkpoints.untrusted import check_archive, read_bytes, wrap_errors
from .orientation import AxesTriple
from .sliding import Network

Layout = Literal["NCDHW", "NDHWC"]


def check_trusted(path: Path, sha256: str, trust: str, subject: str) -> None:
    """Raise `ModelError` unless a TorchScript program is one of limner's cards, or named as trusted by its sha256."""
    if sha256 in shipped_digests() or trust == sha256:
        return
    rule = f"must be trusted to run {path.name}: TorchScript is a program, which can do whatever you can"
    remedy = f"If you trust where it comes from, add --set model_options.trust={sha256}"
    raise ModelError(subject, rule, value="another file is trusted" if trust else "", remedy=remedy)


def check_onnx(path: Path, patch: AxesTriple, layout: Layout, subject: str) -> None:
    """Load an ONNX network in a sandboxed process, and compare what it states of its input with the patch.

    Raises `ModelError`.
    """
    header = onnx.read_header(path)
    needed = (1, 1, *patch) if layout == "NCDHW" else (1, *patch, 1)
    stated = header.shapes[0]
    fits = len(stated) == 5 and all(side in {None, there} for side, there in zip(stated, needed, strict=True))
    if header.inputs != 1 or not fits:
        rule = f"must have one input of the shape {needed}"
        remedy = "Correct patch or layout in its card: it takes one channel, and a patch at a time"
        raise ModelError(subject, rule, value=f"{header.inputs} inputs, {stated}", remedy=remedy)
    onnx.try_in_sandbox(path, layout="NHWC", tile=0, channels=1)


def load_onnx(path: Path, *, classes: int, layout: Layout, threads: int, subject: str) -> Network:
    """An ONNX network of that layout. Raises `ModelError`."""
    content = read_bytes(path, subject, most=onnx.MAX_BYTES)
    held = onnx.OnnxNetwork(content, name=path.name, layout="NHWC", threads=threads)  # which leaves the axes alone

    def run(patch: torch.Tensor) -> torch.Tensor:
        given = patch if layout == "NCDHW" else patch.movedim(1, -1)
        return score_volume(torch.from_numpy(held.output(given.contiguous().numpy())), patch, classes, layout, subject)

    return run


def load_torchscript(path: Path, *, classes: int, layout: Layout, subject: str) -> Network:
    """The network of a TorchScript program that is trusted. Raises `ModelError`."""
    content = read_bytes(path, subject, most=onnx.MAX_BYTES)
    remedy = "Check that the file is whole"
    with wrap_errors(subject, "must load as TorchScript", remedy=remedy), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the format's successor is another format
        check_archive(io.BytesIO(content))
        script: Any = cast("Any", torch.jit).load(io.BytesIO(content), map_location="cpu")
        script.eval()

    def run(patch: torch.Tensor) -> torch.Tensor:
        given = patch if layout == "NCDHW" else patch.movedim(1, -1)
        with cast("Any", torch.jit).optimized_execution(False):
            answer: Any = script(given.contiguous())
        return score_volume(answer, patch, classes, layout, subject)

    return run


def score_volume(answer: Any, patch: torch.Tensor, classes: int, layout: Layout, subject: str) -> torch.Tensor:
    """The scores (classes, …) of a patch. Raises `ModelError` for another shape, and what is not finite."""
    found = answer if isinstance(answer, torch.Tensor) else torch.empty(0)
    if layout == "NDHWC" and found.ndim == 5:
        found = found.movedim(-1, 1)
    if tuple(found.shape) != (1, classes, *patch.shape[2:]):
        rule = f"must return (1, {classes}, …) scores for a patch of {tuple(patch.shape[2:])} voxels"
        value = str(tuple(answer.shape)) if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise ModelError(subject, rule, value=value, remedy="Correct classes, patch or layout")
    scores = found[0].to(torch.float32)
    if not np.isfinite(float(scores.abs().max())):
        rule, remedy = "must return finite numbers", "Check that its files belong together"
        raise ModelError(subject, rule, remedy=remedy)
    return scores
