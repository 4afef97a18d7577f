# For the type checker only: the package's own __init__ imports two thousand modules, a fifth of the time of a check.
from typing import Any

def __getattr__(name: str) -> Any: ...
