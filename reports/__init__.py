"""Reports: findings become tables, maps and pictures that other programs open.

This package knows placements and findings. It does not know how pixels were read or how a model works.
"""
