"""SAHI's sliced prediction with the made detector: python sahi_loop.py PICTURE NETWORK OUT.npy."""

import sys
from typing import Any

import numpy as np
import onnxruntime
from made import OVERLAP, TILE
from sahi.models.base import DetectionModel  # pyright: ignore[reportMissingImports] - of another environment
from sahi.predict import get_sliced_prediction  # pyright: ignore[reportMissingImports]
from sahi.prediction import ObjectPrediction  # pyright: ignore[reportMissingImports]


class Detector(DetectionModel):
    """The ONNX network, one tile at a time, as SAHI runs networks that bring no batches of their own."""

    def load_model(self) -> None:
        """Load the network, with one thread that does not wait busily, as limner does."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.model = onnxruntime.InferenceSession(self.model_path, options, providers=["CPUExecutionProvider"])
        self.category_mapping = {"0": "object"}

    def perform_inference(self, image: Any) -> None:
        """A tile (512, 512, 3)."""
        values = (image.transpose(2, 0, 1) / np.float32(255))[None]
        self._original_predictions: Any = self.model.run(None, {"x": values})

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: Any = None, full_shape_list: Any = None
    ) -> None:
        rows = np.asarray(self._original_predictions[0])[0].T
        rows = rows[rows[:, 4] > self.confidence_threshold]
        corners = np.concatenate([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2], axis=1)
        self._object_prediction_list_per_image = [
            [
                ObjectPrediction(
                    bbox=box.tolist(),
                    category_id=0,
                    category_name="object",
                    score=float(score),
                    shift_amount=shift_amount_list[0],
                    full_shape=full_shape_list[0],
                )
                for box, score in zip(corners, rows[:, 4], strict=True)
            ]
        ]


def main(picture: str, network: str, out: str) -> None:
    """Detect, merge, and save boxes (n, 4)."""
    result = get_sliced_prediction(
        picture,
        Detector(model_path=network, confidence_threshold=0.5, device="cpu"),
        slice_height=TILE,
        slice_width=TILE,
        overlap_height_ratio=OVERLAP / TILE,
        overlap_width_ratio=OVERLAP / TILE,
        perform_standard_pred=False,  # the network takes tiles only
        verbose=0,
    )
    np.save(out, np.array([one.bbox.to_xyxy() for one in result.object_prediction_list]))


if __name__ == "__main__":
    main(*sys.argv[1:])
