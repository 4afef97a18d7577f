"""Patch classification networks."""
