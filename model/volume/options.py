"""Options of volume models."""

from pydantic import Field

from ..options import CheckpointOptions, Names, NetworkOptions


class FolderOptions(NetworkOptions):
    """Options of folders and of users' cards, each of which refuses those that it does not take."""

    folds: Names = Field(
        default=(), description="The folds whose answers are averaged; by default those that the model names."
    )
    flips: bool = Field(default=False, description="Average the answers to a volume and to its mirror images.")
    configuration: str = Field(
        default="", description="Of nnU-Net: the configuration; by default that of its name, or 3d_fullres."
    )
    step: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Of a folder: the distance of neighbouring patches as a share of a patch, instead of its own.",
    )
    orientation: str = Field(
        default="",
        description=(
            "Of a folder: the directions of the network's axes z, y and x, such as SAR; by default those that it "
            "states, or those of the series."
        ),
    )
    trust: str = Field(
        default="",
        description="Of TorchScript, which is a program: the sha256 of the file that you trust to run on this machine.",
    )


class VolumeOptions(CheckpointOptions, FolderOptions):
    """Options of the annotator `volume`."""

    checkpoint: str = Field(
        min_length=1,
        description="The name or file of a card, a folder of nnU-Net v2, or a MONAI bundle.",
        examples=["--model volume:FOLDER"],
    )
