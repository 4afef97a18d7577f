"""Probes: a frozen encoder turns a tile into numbers, and a small head that was taught says what they mean."""
