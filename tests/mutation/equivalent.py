"""Mutants that do what the original does, each with the reason: file, line before, line after."""

EQUIVALENT: dict[tuple[str, str, str], str] = {}
