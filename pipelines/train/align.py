"""An alignment from its files to a new checkpoint: read, go on where one was cut off, train, and tell of each step.

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
from ...model.vlm.fourkhd.files import Files
from ...model.vlm.fourkhd.tokenizer import Tokenizer
from ...readers.errors import RequestError
from ...readers.files import atomic_path, write_atomic
from ...readers.plugins import require_extra

if TYPE_CHECKING:
    from ...model.training.align import Alignment, Row

CHECKPOINTS, LOSSES, PICTURE, MODEL = "checkpoints", "losses.csv", "losses.png", "model"


def align(  # noqa: PLR0913 - as many as a training has sides
    model: str,
    data: Path,
    out: Path,
    settings: "Alignment",
    *,
    hd_num: int = 1,
    every: int = 200,
    dtype: str = "",
    device: str = "auto",
    threads: int = 0,
    tell: Callable[["Row", int], None] | None = None,
) -> Path:
    """Align a model with the samples of `data`; a checkpoint each `every` steps. Returns the new checkpoint's folder.

    Where `out` holds a checkpoint of the same training, it goes on from there. `hd_num` is for samples that state none;
    `dtype` is the new checkpoint's, "" the old one's; `tell` hears each step and how many there are. Raises
    `RequestError`, `ModelError`, `ReadError`.
    """
    from ...model.training import state
    from ...model.training.align import Aligner, check, compute_with
    from ...model.vlm.fourkhd.convert import convert
    from ...model.vlm.fourkhd.load import RuntimeOptions, fill

    require_extra("train", "limner train align")
    from .plots import plot_losses

    check(settings)
    if every < 1:
        raise RequestError("--every", "it is a whole number from 1", value=str(every), remedy="Correct it")
    samples = read_samples(data, hd_num=hd_num)
    files = Files.find(model)
    tokenizer = Tokenizer(files.tokenizer, model)
    asked = _asked(files, data, settings, hd_num)
    before = state.last(out / CHECKPOINTS)
    if before is not None:
        _refuse_difference(before.asked, asked, out)
    compute_with(threads)
    narrow = settings.bf16 and RuntimeOptions(device=device).first().type == "cuda"  # what is frozen needs no more
    network = fill(files, RuntimeOptions(dtype="bfloat16" if narrow else "float32", device=device))
    aligner = Aligner(network, tokenizer, samples, settings)
    if before is not None:
        aligner.resume(before)
    out.mkdir(parents=True, exist_ok=True)
    rows = _cut(out / LOSSES, aligner.step)

    def after(row: "Row") -> None:
        rows.append(_line(astuple(row)))
        with (out / LOSSES).open("a", encoding="utf-8", newline="") as file:
            file.write(rows[-1])
        if aligner.step % every == 0 or aligner.step == aligner.steps:
            state.keep(out / CHECKPOINTS, aligner.standing(asked))
        if tell is not None:
            tell(row, aligner.steps)

    aligner.run(after)
    plot_losses([float(line.split(",")[1]) for line in rows[1:]], out / PICTURE)
    with atomic_path(out / MODEL) as part:
        convert(files, part, dtype=dtype, instead=aligner.trained, stated={"layout": settings.layout})
    return out / MODEL


def _asked(files: Files, data: Path, settings: "Alignment", hd_num: int) -> dict[str, str]:
    """Everything that decides the steps, as text."""
    whole = "".join(f"{name} {digest}\n" for name, digest in files.held.digests().items())
    return {
        "model": hashlib.sha256(whole.encode()).hexdigest(),
        "data": hashlib.sha256(data.read_bytes()).hexdigest(),
        "hd_num": str(hd_num),
        **{name: str(value) for name, value in asdict(settings).items()},
    }


def _refuse_difference(before: Mapping[str, str], asked: Mapping[str, str], out: Path) -> None:
    differing = [name for name in asked if before.get(name) != asked[name]]
    if differing:
        name = differing[0]
        raise RequestError(
            str(out),
            "a training goes on with the settings, the model and the data that it was begun with",
            value=f"{', '.join(differing)} differ: {name} was {before.get(name)} and is {asked[name]}",
            remedy="Give the same again, or name another folder",
        )


def _cut(path: Path, step: int) -> list[str]:
    """The lines of losses.csv up to that step; what was done after the last checkpoint is done again."""
    from ...model.training.align import Row

    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() and step else []
    lines = lines[: step + 1] or [_line([field.name for field in fields(Row)])]
    write_atomic(path, "".join(lines).encode())
    return lines


def _line(values: Sequence[object]) -> str:
    """A line of CSV; numbers keep every bit."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([repr(v) if isinstance(v, float) else v for v in values])
    return text.getvalue()
