"""The model of a run as an item of STAC with the extension mlm: what it takes, what it gives, and its weights."""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..model.annotator import InputSpec
from ..readers.files import without_accents
from .csv_safety import clean_text
from .measures import batches
from .writer import ImageRecord, Record

_TASKS: Final = {
    "area": "semantic-segmentation",
    "box": "object-detection",
    "tile": "scene-classification",
    "region": "scene-classification",
}
"""Kinds of findings → tasks of mlm."""
_FRAMEWORKS: Final = {
    "onnxruntime": "ONNX",
    "torch": "PyTorch",
    "transformers": "Hugging Face",
    "sklearn": "scikit-learn",
}
_ALWAYS: Final = ("1900-01-01T00:00:00Z", "9999-12-31T23:59:59Z")  # as mlm advises for models that hold for any time
_RGB: Final = ("red", "green", "blue")


def model_item(
    record: Record, images: Sequence[ImageRecord], classes: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The item of the model of these images, without its version and extensions; None where no weights are known.

    mlm demands a file of weights: it is named by its sha256 (RFC 6920), since it is no part of the run.
    """
    weights = {key: value for key, value in _weights(record).items() if re.fullmatch("[0-9a-f]{64}", value)}
    specs = list(dict.fromkeys(image.spec for image in images if image.spec is not None))
    if not record.assessed or not weights or not specs:
        return None
    kinds = {kind for batch in batches(record, images) for kind in batch.table.kind.tolist()}
    name, tasks = slug(record.model.get("name", ""), "model"), sorted({_TASKS[kind] for kind in kinds & _TASKS.keys()})
    framework = _framework(record.model.get("runtime", ""))
    bands = [{"name": band} for band in dict.fromkeys(band for spec in specs for band in spec.bands or _RGB)]
    licence = record.model.get("licence", "")
    properties: dict[str, Any] = {
        "title": clean_text(" ".join(filter(None, (record.model.get("name"), record.model.get("version"))))),
        "description": clean_text(record.use),
        "datetime": None,
        "start_datetime": _ALWAYS[0],
        "end_datetime": _ALWAYS[1],
        **({"license": licence} if re.fullmatch(r"[\w.+-]+", licence, re.ASCII) else {}),
        "bands": bands,  # where mlm looks for those of its inputs; STAC allows them where an asset has them, too
        "mlm:name": name,
        "mlm:architecture": clean_text(record.model.get("architecture") or record.model.get("family") or "not stated"),
        "mlm:tasks": tasks,
        **{f"mlm:{key}": value for key, value in framework.items()},
        "mlm:input": [_input(spec) for spec in specs],
        "mlm:output": [_output(spec, tasks, classes) for spec in specs[:1]],
    }
    artifact = framework.get("framework", "not stated").lower()
    assets = {
        key: {
            "href": f"ni:///sha-256;{_base64url(value)}",
            "type": "application/octet-stream",
            "title": f"Weights with the sha256 {value}, not part of the run",
            "roles": ["mlm:model", "mlm:weights"],
            "bands": bands,
            "mlm:artifact_type": artifact,
            "file:checksum": f"1220{value}",
        }
        for key, value in weights.items()
    }
    return {"type": "Feature", "id": name, "geometry": None, "properties": properties, "links": [], "assets": assets}


def slug(text: str, fallback: str) -> str:
    """A name of letters, digits, dots, dashes and underscores that begins with a letter and ends without a sign.

    >>> slug("snow/ice", "class"), slug("3", "class"), slug("", "class"), slug("Köder", "class")
    ('snow-ice', 'class-3', 'class', 'Koder')
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", without_accents(text)).strip("-._")
    return plain if re.fullmatch(r"[A-Za-z].+", plain) else "-".join(filter(None, (fallback, plain)))


def _weights(record: Record) -> Mapping[str, str]:
    """Name → sha256 of the files with weights that the run's images used, where the identity names them."""
    parts = record.model.get("sha256", "").split()
    named = {key.removeprefix("weights_sha256_"): value for key, value in record.model.items() if value in parts}
    return {slug(key, "weights"): value for key, value in named.items() if key != "sha256"} or {
        f"weights-{number}": value for number, value in enumerate(parts, 1)
    }


def _framework(runtime: str) -> dict[str, str]:
    """The framework of a runtime such as "torch 2.13.0+cpu, transformers 5.23.0", and its version."""
    found = re.search(rf"\b({'|'.join(_FRAMEWORKS)}) (\d+\.\d+\.\d+)", runtime)
    return {} if found is None else {"framework": _FRAMEWORKS[found[1]], "framework_version": found[2]}


def _input(spec: InputSpec) -> dict[str, Any]:
    bands = spec.bands or _RGB
    said = [
        f"{spec.quantity or 'physical values'} of native bands" if spec.bands else "rendered RGB of 8 bits",
        f"at {spec.resolution:g} {spec.unit} per pixel" if spec.resolution else "at any pixel size",
        f"of which {spec.halo} px at each border are dropped",
    ]
    return {
        "name": spec.variant or "tiles",
        "description": f"Tiles of {spec.tile} px: {', '.join(said)}",
        "bands": list(bands),
        "input": {
            "shape": [-1, spec.tile, spec.tile, len(bands)],
            "dim_order": ["batch", "height", "width", "bands"],
            "data_type": "float32" if spec.bands else "uint8",
        },
    }


def _output(spec: InputSpec, tasks: Sequence[str], classes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    dense = "semantic-segmentation" in tasks
    shape = (
        {"batch": -1, "height": spec.tile, "width": spec.tile} if dense else {"batch": -1, "class": len(classes) or -1}
    )
    return {
        "name": "class of each pixel" if dense else "scores of classes",
        "tasks": list(tasks),
        "result": {
            "shape": list(shape.values()),
            "dim_order": list(shape),
            "data_type": "uint8" if dense else "float32",
        },
        "classification:classes": [{key: one[key] for key in one if key != "title"} for one in classes],
    }


def _base64url(digest: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")
