"""Vision-language models: one question per region, whichever model or server answers it."""
