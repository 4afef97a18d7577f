"""Asking: one question, four kinds of answer, whichever vision-language model is asked."""
