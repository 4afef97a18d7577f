"""Where a training stands, on disk: tensors that are trained, the optimiser's, and the step. Existence means complete.

A checkpoint is a folder `step-00000120`: `trained.safetensors` (float32), `optimizer.pt` (plain tensors, read by
torch with weights only) and `state.json`. It is made under another name and renamed, and only then is the one before
it removed.
"""

# torch's and safetensors' types do not say what they load and save:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ...readers.files import atomic_path
from ..checkpoints.untrusted import read_json, wrap_errors

_TRAINED, _OPTIMIZER, _STATE = "trained.safetensors", "optimizer.pt", "state.json"


@dataclass(frozen=True, slots=True)
class Standing:
    """After `step` steps: `trained` tensors by name, `optimizer` tensors by "name/kind", and what was `asked`."""

    step: int
    trained: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    asked: Mapping[str, str]


def keep(folder: Path, standing: Standing) -> Path:
    """Write a checkpoint into `folder`, then remove those before it. Returns its own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in standing.trained.items()}
    state = {"step": standing.step, "asked": dict(standing.asked)}
    whole = folder / f"step-{standing.step:08d}"
    with atomic_path(whole) as part:
        part.mkdir()
        save_file(tensors, part / _TRAINED)
        torch.save({key: tensor.detach().cpu() for key, tensor in standing.optimizer.items()}, part / _OPTIMIZER)
        (part / _STATE).write_text(json.dumps(state, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for older in kept(folder):
        if older != whole:
            shutil.rmtree(older)
    return whole


def kept(folder: Path) -> list[Path]:
    """The complete checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / _STATE).is_file())


def last(folder: Path) -> Standing | None:
    """The newest checkpoint of a folder, None where there is none. Raises `ModelError` where it is damaged."""
    found = kept(folder)
    if not found:
        return None
    remedy = "Remove that folder, and training goes on from the start"
    with wrap_errors(str(found[-1]), "a checkpoint must be whole to go on from it", remedy=remedy):
        state = read_json(found[-1] / _STATE, str(found[-1]))
        trained = load_file(found[-1] / _TRAINED)
        optimizer: Any = torch.load(found[-1] / _OPTIMIZER, map_location="cpu", weights_only=True)
        return Standing(int(state["step"]), trained, optimizer, dict(state["asked"]))
