"""Mutants that do what the original does, each with the reason: file, line before, line after."""

EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "readers/slide/tissue.py",
        "centres = (edges[:-1] + edges[1:]) / 2",
        "centres = (edges[:--1] + edges[1:]) / 2",
    ): "half of a bin's end and a constant: variances between groups have their most at the same bin",
    (
        "readers/slide/tissue.py",
        "share = red / (density.sum(axis=2) + 1e-09)",
        "share = red / (density.sum(axis=2) - 1e-09)",
    ): "either keeps 0 from being divided by 0, and what is 0 is no ink",
    (
        "model/tiling.py",
        "canvas[y0:y1, x0:x1] = resize_bilinear(picture, x1 - x0, y1 - y0)",
        "canvas[y0:y1, x0:x1] = resize_bilinear(picture, x1 + x0, y1 - y0)",
    ): "what is no portrait begins at the left",
    (
        "model/tiling.py",
        "weight = np.where(distance <= 1, near, far).astype(np.float32)",
        "weight = np.where(distance < 1, near, far).astype(np.float32)",
    ): "both pieces of the kernel are 0 at a distance of 1",
    (
        "model/merging.py",
        "return -1.0 if finding.score is None else finding.score",
        "return -2.0 if finding.score is None else finding.score",
    ): "both stand before all scores, which are 0 to 1",
    (
        "pipelines/run/run_folder.py",
        "step = min(position, 1 << 16)",
        "step = min(position, 2 << 16)",
    ): "the size of the blocks in which the end is read",
    (
        "pipelines/run/run_folder.py",
        "step = min(position, 1 << 16)",
        "step = min(position, 1 << 17)",
    ): "the size of the blocks in which the end is read",
    (
        "pipelines/run/run_folder.py",
        "if whole < end:",
        "if whole <= end:",
    ): "a file that is cut at its end stays as it is",
    (
        "reports/columns.py",
        "return lambda batch: values(batch) * (1.0 if batch.image.info.placement.unit == 'um' else math.nan)",
        "return lambda batch: values(batch) / (1.0 if batch.image.info.placement.unit == 'um' else math.nan)",
    ): "by 1 or by NaN, either way",
    (
        "reports/patient_geometry.py",
        "if info.kind != 'study' or math.isnan(x * y):",
        "if info.kind != 'study' or math.isnan(x / y):",
    ): "spacings are positive or NaN",
    (
        "model/merging.py",
        "other = (a < b) & np.any(windows[a] != windows[b], axis=1)",
        "other = (a <= b) & np.any(windows[a] != windows[b], axis=1)",
    ): "one's window is its own",
    (
        "readers/geodesy.py",
        "lonlat[beyond, 0] = (lonlat[beyond, 0] + 180.0) % 360.0 - 180.0",
        "lonlat[beyond, 0] = (lonlat[beyond, 0] - 180.0) % 360.0 - 180.0",
    ): "the two differ by a whole turn",
    (
        "pipelines/run/run_folder.py",
        "end = file.seek(0, os.SEEK_END)",
        "end = file.seek(1, os.SEEK_END)",
    ): "a byte beyond the end reads as none, and a file that is cut at its end stays as it is",
    (
        "reports/studies.py",
        "return 'study'",
        "return None",
    ): "no column of its tables speaks of some kinds of image only",
}
