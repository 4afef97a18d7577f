"""Training: a head on frozen features, and the alignment of pictures with words. Loads nothing by itself."""
