"""Image-text models of the CLIP and SigLIP type: zero-shot classification, OpenCLIP checkpoints, feature fusion."""
