"""Overlays of findings with polygons and with the findings of other runs: zones, changes, and runs that are joined."""
