"""The manifest, and differences that prevent resuming a run."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from limner.pipelines.run.manifest import refuse_difference
from limner.readers.errors import RequestError

Limner = Callable[..., Any]


def test_libraries_that_were_not_loaded_may_differ() -> None:
    same: dict[str, Any] = {"config": {}, "annotator": {}, "images": [], "files": []}
    loaded = same | {"versions": {"rasterio": "1.4.3", "gdal": "3.10.3"}}
    refuse_difference(loaded, same | {"versions": {"rasterio": "1.4.3"}}, "run")
    refuse_difference(same | {"versions": {"rasterio": "1.4.3"}}, loaded, "run")
    for other in ({"rasterio": "1.4.4", "gdal": "3.10.3"}, {"rasterio": "1.4.3", "gdal": "3.11.0"}, {"gdal": "3.10.3"}):
        with pytest.raises(RequestError, match="must not hold another run"):
            refuse_difference(loaded, same | {"versions": other}, "run")


@pytest.mark.slow
def test_the_manifest_is_deterministic(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    limner("run", scene, "--out", tmp_path / "a", "--model", card)
    limner("run", scene, "--out", tmp_path / "b", "--model", card)
    manifest, other = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in "ab")
    for one in (manifest, other):
        began = datetime.fromisoformat(one.pop("started"))
        assert timedelta(0) <= datetime.now(UTC) - began < timedelta(minutes=10)
        assert one.pop("sha256"), "of all else, with the time"
    assert manifest == other
    assert manifest["config"]["inputs"] == [str(scene)]
    assert manifest["images"][0]["info"]["fingerprint"]
    assert manifest["images"][0]["stretch"]["channels"] == ["red"]
    assert {"limner", "gdal", "onnxruntime", "geos"} <= set(manifest["versions"])
    assert "/a" not in json.dumps(manifest).replace(str(scene), "")
