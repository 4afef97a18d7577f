"""What may differ between a run and the one that goes on with it."""

from typing import Any

import pytest
from limner.pipelines.manifest import refuse_difference
from limner.readers.errors import RequestError


def test_what_a_process_has_not_loaded_is_no_difference() -> None:
    same: dict[str, Any] = {"config": {}, "annotator": {}, "images": [], "files": []}
    loaded = same | {"versions": {"rasterio": "1.4.3", "gdal": "3.10.3"}}
    refuse_difference(loaded, same | {"versions": {"rasterio": "1.4.3"}}, "run")
    refuse_difference(same | {"versions": {"rasterio": "1.4.3"}}, loaded, "run")
    for other in ({"rasterio": "1.4.4", "gdal": "3.10.3"}, {"rasterio": "1.4.3", "gdal": "3.11.0"}, {"gdal": "3.10.3"}):
        with pytest.raises(RequestError, match="it holds another run"):
            refuse_difference(loaded, same | {"versions": other}, "run")
