"""Memory that runs out: torch has several ways to say so, and Python one. And what a GPU has left. Imports torch."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

SIGNS = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory", "Cannot allocate memory")
"""In what a processor's allocator says."""


@contextmanager
def memory() -> Generator[None]:
    """Says of torch's own ways to run out of memory that memory has run out, by `MemoryError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()  # fewer regions at once, or the next one, may fit
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if any(sign in str(error) for sign in SIGNS):
            raise MemoryError(str(error)) from error
        raise


def free_gpu_memory(device: str) -> float:
    """Bytes that are free on a GPU by torch's name for it, or on all of them together where that is "split"."""
    several = range(torch.cuda.device_count()) if device == "split" else [torch.device(device)]
    return float(sum(torch.cuda.mem_get_info(one)[0] for one in several))
