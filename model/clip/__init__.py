"""Image-text models of the CLIP and SigLIP family: zero-shot classification and OpenCLIP checkpoints."""
