"""Declares the two operators of torchvision whose absence keeps it from being imported.

torchvision's compiled part loads only beside the build of torch that it was made for. Beside another, its transforms
and networks, which are Python, work all the same once its operators are known by name. Import this before torchvision.
"""

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")
if not hasattr(torch.ops.torchvision, "nms"):
    LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
