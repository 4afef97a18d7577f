"""How wide a halo a card's network needs: how often a pixel's class changes with its distance from the tile's edge.

    python tests/bench/csmask_halo.py csmask FOLDER SENSOR

FOLDER is a scene for the scene reader, and SENSOR its sensor (for example sentinel-2-l1c); it is read at the card's
resolution. The reference class of a pixel is the one it has within the middle quarter of a tile; the same pixels are
then seen in tiles that lie elsewhere: at multiples of 32 px, as in a run, where tiles keep step with the network's
pooling, and anywhere. Two figures for each halo: how many of the pixels that it keeps change their class, and how many
of the outermost 8 px that it keeps. Tiles have 256 px, whatever the card says, so that a small scene holds several; the
sample scene, which is less than two of them wide, tells little.

Then, for tiles and halos that a card could have, the outline on lines where tiles meet as a multiple of that on the
same lines of the whole scene analysed at once, with its 95 % bootstrap interval over lines.

The first figure should be below 0.5 % for every variant, and the second too, since it is what a seam shows; then
measure with `limner check seams`. Weights must be on this machine (`limner models fetch csmask`).
"""

import sys

import numpy as np
import numpy.typing as npt
from limner.model.checkpoints import onnx, weights
from limner.model.checkpoints.cards import CardVariant, ModelCard, find_card
from limner.readers.geodesy import metres_per_pixel
from limner.readers.image import ImageInfo
from limner.readers.registry import open_image, scan

TILE = 256
SETTINGS = ((256, 32), (256, 64), (512, 32), (512, 48), (512, 64), (768, 96), (768, 128))
SHIFTS = (0, 64, 160, 256)
STEP = 32  # whole scenes are analysed in step with tiles
MARGIN = 128  # repeated pixels around a whole scene

Classes = npt.NDArray[np.intp]


def whole_classes(scene: npt.NDArray[np.float32], network: onnx.OnnxNetwork) -> Classes:
    """The classes (H, W) of a scene analysed at once."""
    height, width = scene.shape[:2]
    after = [MARGIN + -side % STEP for side in (height, width)]
    padded = np.pad(scene, ((MARGIN, after[0]), (MARGIN, after[1]), (0, 0)), mode="edge")
    return network.segment(padded[None])[0].argmax(axis=2)[MARGIN : MARGIN + height, MARGIN : MARGIN + width]


def tiled_classes(
    scene: npt.NDArray[np.float32], network: onnx.OnnxNetwork, tile: int, halo: int, shift: int
) -> Classes:
    """The classes (H, W) of a scene analysed in tiles, the first of which keeps what lies from -shift on."""
    height, width = scene.shape[:2]
    step = tile - 2 * halo
    padded = np.pad(scene, ((shift + halo, tile), (shift + halo, tile), (0, 0)), mode="edge")
    found = np.zeros((height + shift + step, width + shift + step), dtype=np.intp)
    for y in range(0, height + shift, step):
        for x in range(0, width + shift, step):
            classes = network.segment(padded[None, y : y + tile, x : x + tile])[0].argmax(axis=2)
            found[y : y + step, x : x + step] = classes[halo : tile - halo, halo : tile - halo]
    return found[shift : shift + height, shift : shift + width]


def outline_on_seams(tiled: Classes, whole: Classes, step: int, shift: int) -> list[tuple[int, int]]:
    """For each line where tiles meet, its outline in pixels, and that on the same line of the whole scene."""
    return [
        (int((one[at - 1] != one[at]).sum()), int((other[at - 1] != other[at]).sum()))
        for one, other in ((tiled, whole), (tiled.T, whole.T))
        for at in range(-shift, len(one), step)
        if at > 0
    ]


def seam_lines(scene: npt.NDArray[np.float32], network: onnx.OnnxNetwork) -> list[str]:
    """A line for each setting."""
    whole = whole_classes(scene, network)
    lines: list[str] = []
    for tile, halo in SETTINGS:
        found: list[tuple[int, int]] = []
        changed: list[float] = []
        for shift in SHIFTS:
            tiled = tiled_classes(scene, network, tile, halo, shift)
            found += outline_on_seams(tiled, whole, tile - 2 * halo, shift)
            changed.append(100 * float((tiled != whole).mean()))
        pairs = np.array(found, dtype=np.float64).reshape(-1, 2)
        if not pairs[:, 1].sum():
            continue
        draws = pairs[np.random.default_rng(0).integers(len(pairs), size=(1000, len(pairs)))].sum(axis=1)
        low, high = np.percentile(draws[:, 0] / np.maximum(1, draws[:, 1]), (2.5, 97.5))
        ratio = pairs[:, 0].sum() / pairs[:, 1].sum()
        share = f"{min(changed):.3f} to {max(changed):.3f} % differ"
        lines.append(
            f"{tile:4d} px, halo {halo:3d}: {ratio:.2f} ({low:.2f} to {high:.2f}, {len(pairs)} lines), {share}"
        )
    return lines


def read_scene(info: ImageInfo, card: ModelCard, variant: CardVariant) -> npt.NDArray[np.float32]:
    """The whole scene at the card's resolution, normalised for the network, (H, W, bands)."""
    wants = [band if isinstance(band, str) else band[0] for band in variant.bands]
    names = [next(c.name for c in info.channels if c.common == want) for want in wants]
    spacing = metres_per_pixel(info.placement, (info.size[0] / 2, info.size[1] / 2))
    if spacing is None:
        sys.exit("the scene has no known pixel size")
    size = [round(length * metres / card.resolution.value) for length, metres in zip(info.size, spacing, strict=True)]
    with open_image(info, names) as image:
        pixels, _ = image.read(info.box, (size[0], size[1]))
        physical = np.stack(
            [pixels[..., i].astype(np.float64) * c.scale + c.offset for i, c in enumerate(image.channels)], axis=2
        )
    return ((physical - variant.mean) / variant.std).astype(np.float32)


def measure(
    scene: npt.NDArray[np.float32], network: onnx.OnnxNetwork, tile: int, *, first: int, step: int
) -> npt.NDArray[np.float64]:
    """(tile / 2, 2): changed and seen pixels by whole pixels of distance from the tile's edge."""
    height, width = scene.shape[:2]

    def classes(y: int, x: int) -> npt.NDArray[np.intp]:
        return network.segment(scene[None, y : y + tile, x : x + tile])[0].argmax(axis=2)

    margin, middle = 3 * tile // 8, tile // 4
    reference = np.full((height, width), -1)
    for y in range(0, height - tile + 1, middle):
        for x in range(0, width - tile + 1, middle):
            inner = classes(y, x)[margin:-margin, margin:-margin]
            reference[y + margin : y + margin + middle, x + margin : x + margin + middle] = inner
    ramp = np.minimum(np.arange(tile), np.arange(tile)[::-1])
    distance = np.minimum.outer(ramp, ramp)
    counts = np.zeros((tile // 2, 2))
    for y in range(first, height - tile + 1, step):
        for x in range(first, width - tile + 1, step):
            known = reference[y : y + tile, x : x + tile]
            changed = (classes(y, x) != known)[known >= 0]
            counts[:, 0] += np.bincount(distance[known >= 0], weights=changed, minlength=tile // 2)
            counts[:, 1] += np.bincount(distance[known >= 0], minlength=tile // 2)
    return counts


def main(name: str, folder: str, sensor: str) -> None:
    """Print the table."""
    card = find_card(name)
    info = next(
        info for scanned in scan([folder], {"sensor": sensor}) for info in scanned.infos if len(info.channels) > 1
    )
    quantity = {c.common: c.quantity for c in info.channels}
    for variant in card.variants:
        wants = [band if isinstance(band, str) else band[0] for band in variant.bands]
        if any(quantity.get(want) != variant.quantity for want in wants):
            sys.stdout.write(f"{name}/{variant.name}: the scene has not its bands in {variant.quantity}\n")
            continue
        content = weights.read_weights(variant.weights, variant.sha256, name=name)
        network = onnx.OnnxNetwork(content, name=variant.name, layout=card.layout, tile=TILE)
        observed = read_scene(info, card, variant)
        for where, first, step in (("multiples of 32 px", 32, 32), ("anywhere", 19, 53)):
            counts = measure(observed, network, TILE, first=first, step=step)
            lines = [f"{name}/{variant.name}, tiles at {where}: halo, % changed of what is kept, % of its rim"]
            for halo in range(0, 97, 8):
                kept, border = counts[halo:].sum(axis=0), counts[halo : halo + 8].sum(axis=0)
                if border[1]:
                    lines.append(f"{halo:4d}  {100 * kept[0] / kept[1]:6.3f}  {100 * border[0] / border[1]:6.3f}")
            sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.write("\n".join(["outline on seams:", *seam_lines(observed, network)]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
