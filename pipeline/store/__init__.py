"""The lake: Delta tables with a fenced commit, and the small mutable state in SQLite."""
