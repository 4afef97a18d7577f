"""Pipelines: configuration, plan, engine, store, reports; and the command line that drives them."""
