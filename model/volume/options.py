"""Options of the families of volume models, each of which names those that it does not take."""

from pydantic import Field

from ..options import Names, NetworkOptions


class VolumeOptions(NetworkOptions):
    """Options of `find_volume_folder`."""

    configuration: str = Field(
        default="",
        description="Of an nnU-Net folder: the configuration; by default that of its name, or 3d_fullres.",
    )
    folds: Names = Field(
        default=(), description="Of an nnU-Net folder: the folds whose answers are averaged; all by default."
    )
    flips: bool = Field(
        default=False,
        description="Average the scores of a patch and of its mirror images, along the axes that the model allows.",
    )
    step: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Distance of neighbouring patches as a share of a patch, instead of the model's own.",
    )
    orientation: str = Field(
        default="",
        description=(
            "Directions of the network's axes z, y and x, such as SAR; by default those that the model states, or "
            "those of the series."
        ),
    )
    trust: str = Field(
        default="",
        description="The sha256 of a TorchScript file, which is a program, that you trust to run on this machine.",
    )
