"""A file of weights alone, as OpenCLIP's users pass them on: a person names its architecture."""

from pathlib import Path

from ...readers.errors import ModelError
from ..checkpoints.files import CheckpointFiles
from .checkpoint import ClipCheckpoint, OpenClip
from .openclip_architectures import MEAN, STD, check_shapes, named
from .openclip_files import with_tokenizer

SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")


def find_bare(source: str, architecture: str, *, tokenizer: str = "", words: bool = True) -> ClipCheckpoint:
    """The checkpoint of a file that holds a CLIP's weights by OpenCLIP's names, and nothing else.

    `architecture` is OpenCLIP's name for the model. It says what the weights do not, and OpenCLIP's colours for models
    of which only the name is known, those of OpenAI's, are taken with it. `tokenizer` as for `with_tokenizer`, which is
    asked where `words` are to be read. Raises `ModelError`; where no architecture is named, with those that the weights
    can be.
    """
    path = Path(source)
    if path.suffix not in SUFFIXES:
        raise ModelError(
            f"checkpoint {source}",
            f"a file of weights alone ends in {', '.join(SUFFIXES)}",
            value=path.suffix or "no ending",
            remedy="Name the file of weights, or the folder that holds them with their settings",
        )
    if not architecture:
        from .openclip_load import read_shapes

        check_shapes(read_shapes(path, source), architecture, source)
    settings = named(architecture, source)
    files, read_by = CheckpointFiles(source, path.parent, (), (path.name,)), None
    if words:
        files, read_by = with_tokenizer(files, tokenizer)
    known = OpenClip(settings, architecture, read_by)
    return ClipCheckpoint(files, "clip", settings["vision_config"]["image_size"], 1 / 255, MEAN, STD, known)
