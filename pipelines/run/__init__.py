"""Runs: plan, engines, run folder and reports."""
