"""`limner train align`: train a 4KHD model on a JSONL file, resume an interrupted training, write the new checkpoint.

The folder holds `checkpoints/`, `losses.csv`, `losses.png`, and at the end `model/`, the new checkpoint.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ...model.training.dataset import read_samples
from ...model.vlm.fourkhd.checkpoint import FourKhdFiles, convert
from ...model.vlm.fourkhd.tokenizer import Tokenizer
from ...readers.errors import RequestError
from ...readers.files import atomic_path, write_atomic
from ...readers.plugins import require_extra
from .report import plot_losses

if TYPE_CHECKING:
    from ...model.training.align import AlignmentConfig, StepRecord

CHECKPOINTS, LOSSES, PLOT, MODEL = "checkpoints", "losses.csv", "losses.png", "model"


def align(  # noqa: PLR0913 - as many as a training has settings
    model: str,
    data: Path,
    out: Path,
    config: "AlignmentConfig",
    *,
    hd_num: int = 1,
    every: int = 200,
    dtype: str = "",
    device: str = "auto",
    threads: int = 0,
    on_step: Callable[["StepRecord", int], None] | None = None,
) -> Path:
    """Align a model with the samples in `data`, and return the folder of the new checkpoint.

    Resumes where `out` holds a checkpoint of the same training; saves one each `every` steps. `hd_num` is for samples
    without one; `dtype` is the new checkpoint's, "" for the old one's; `on_step` gets each step and the total number.
    Raises `RequestError`, `ModelError`, `ReadError`.
    """
    from ...model.training.align import Aligner, load_state, save_state
    from ...model.vlm.fourkhd.runtime import RuntimeOptions, load_network

    require_extra("train", "limner train align")
    config.check()
    if every < 1:
        raise RequestError("--every", "must be 1 or more", value=str(every), remedy="Give another --every")
    samples = read_samples(data, hd_num=hd_num)
    files = FourKhdFiles.find(model)
    tokenizer = Tokenizer(files.tokenizer, model)
    settings = _settings(files, data, config, hd_num)
    state = load_state(out / CHECKPOINTS)
    if state is not None:
        _check_same(state.settings, settings, out)
    half = config.bf16 and RuntimeOptions(device=device).image_device().type == "cuda"  # frozen weights need no more
    network = load_network(files, RuntimeOptions(dtype="bfloat16" if half else "float32", device=device))
    aligner = Aligner(network, tokenizer, samples, config, threads=threads)
    if state is not None:
        aligner.resume(state)
    out.mkdir(parents=True, exist_ok=True)
    lines = _truncate(out / LOSSES, aligner.step)

    def record(step: "StepRecord") -> None:
        lines.append(_line(astuple(step)))
        with (out / LOSSES).open("a", encoding="utf-8", newline="") as file:
            file.write(lines[-1])
        if aligner.step % every == 0 or aligner.step == aligner.steps:
            save_state(out / CHECKPOINTS, aligner.state(settings))
        if on_step is not None:
            on_step(step, aligner.steps)

    aligner.run(record)
    plot_losses([float(line.split(",")[1]) for line in lines[1:]], out / PLOT)
    with atomic_path(out / MODEL) as part:
        convert(files, part, dtype=dtype, replaced=aligner.trained, stated={"layout": config.layout})
    return out / MODEL


def _settings(files: FourKhdFiles, data: Path, config: "AlignmentConfig", hd_num: int) -> dict[str, str]:
    """Everything that decides the steps, as text."""
    digests = "".join(f"{name} {digest}\n" for name, digest in files.held.digests().items())
    return {
        "model": hashlib.sha256(digests.encode()).hexdigest(),
        "data": hashlib.sha256(data.read_bytes()).hexdigest(),
        "hd_num": str(hd_num),
        **{name: str(value) for name, value in asdict(config).items()},
    }


def _check_same(before: Mapping[str, str], now: Mapping[str, str], out: Path) -> None:
    differing = [name for name in now if before.get(name) != now[name]]
    if differing:
        name = differing[0]
        raise RequestError(
            f"training in {out}",
            "must be resumed with the same settings, model and data",
            value=f"{', '.join(differing)} differ: {name} was {before.get(name)} and is {now[name]}",
            remedy="Give the same again, or name another folder",
        )


def _truncate(path: Path, step: int) -> list[str]:
    """The lines of losses.csv up to that step; later steps are repeated."""
    from ...model.training.align import StepRecord

    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() and step else []
    lines = lines[: step + 1] or [_line([field.name for field in fields(StepRecord)])]
    write_atomic(path, "".join(lines).encode())
    return lines


def _line(values: Sequence[object]) -> str:
    """A line of CSV; numbers keep every bit."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([repr(v) if isinstance(v, float) else v for v in values])
    return text.getvalue()
