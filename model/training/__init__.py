"""Training: classification heads on frozen features, and the alignment of a 4KHD model with image-text samples."""
