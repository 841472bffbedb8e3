"""Readings come in: sources, formats, validation, watermarks, and a simulator that makes them."""
