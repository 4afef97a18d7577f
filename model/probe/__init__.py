"""Probes: a frozen encoder's features of each tile, classified by a small trained head."""
