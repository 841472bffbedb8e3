"""Prefect at the edge: thin flows over `pipeline`, the schedules, and the command line."""
