"""Classification, segmentation and detection checkpoints in the format of Hugging Face transformers."""
