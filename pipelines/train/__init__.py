"""`limner train`: probes on frozen encoders, and the alignment of a 4KHD model."""
