"""InternLM-XComposer2-4KHD: the model, its files, its prompts, and the respondent that limner asks.

Source: arXiv 2404.06512. Native PyTorch on transformers' base classes; no code of a checkpoint is ever run.
"""
