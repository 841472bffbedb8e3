"""Prefect at the edge: thin flows over `pipeline`, the schedules, and the command line."""

from flows.quiet import hush

hush()  # here and nowhere later: Prefect reads its environment when it is first imported, by whichever module of ours
