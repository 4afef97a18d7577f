"""InternLM-XComposer2-4KHD: its network, files and prompts, and the backend that answers questions with it.

Source: arXiv 2404.06512. Native PyTorch on transformers' base classes; code that comes with a checkpoint is never run.
"""
