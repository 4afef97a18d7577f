"""Checkpoints in OpenCLIP's format: folders, and files of weights alone."""
