"""Mutants that do what the original does, each with the reason: file, line before, line after."""

_ANY_NEGATIVE = "numpy takes any negative number for the length that it works out"

EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "readers/geometry.py",
        "points = np.asarray(xy, dtype=np.float64).reshape(-1, 2)",
        "points = np.asarray(xy, dtype=np.float64).reshape(-2, 2)",
    ): _ANY_NEGATIVE,
    (
        "readers/geometry.py",
        "world = np.asarray(world_xy, dtype=np.float64).reshape(-1, len(matrix))",
        "world = np.asarray(world_xy, dtype=np.float64).reshape(-2, len(matrix))",
    ): _ANY_NEGATIVE,
    (
        "readers/tissue.py",
        "centres = (edges[:-1] + edges[1:]) / 2",
        "centres = (edges[:--1] + edges[1:]) / 2",
    ): "half of a bin's end and a constant: variances between groups have their most at the same bin",
    (
        "model/tiling.py",
        "weight = np.where(distance <= 1, near, far).astype(np.float32)",
        "weight = np.where(distance < 1, near, far).astype(np.float32)",
    ): "both pieces of the kernel are 0 at a distance of 1",
    (
        "model/seams.py",
        "score = -1.0 if finding.score is None else finding.score",
        "score = -2.0 if finding.score is None else finding.score",
    ): "both stand before all scores, which are 0 to 1",
    (
        "pipelines/store.py",
        "step = min(position, 1 << 16)",
        "step = min(position, 2 << 16)",
    ): "the size of the blocks in which the end is read",
    (
        "pipelines/store.py",
        "step = min(position, 1 << 16)",
        "step = min(position, 1 << 17)",
    ): "the size of the blocks in which the end is read",
    ("pipelines/store.py", "if whole < end:", "if whole <= end:"): "a file that is cut at its end stays as it is",
}
