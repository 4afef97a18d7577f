"""Model files: where they come from, their checksums, model cards, and reading them without trusting them."""
