"""Readers: files become images, placements and regions.

This package knows formats and geometry. It does not know models, findings, configuration or where results go.
Nothing is imported here, so that `import limner.readers` costs nothing and needs no format library.
"""
