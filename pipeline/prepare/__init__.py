"""Readings become observations on a regular grid, and observations become sequences."""
