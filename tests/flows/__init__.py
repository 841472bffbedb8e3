"""Tests of flows and command line."""
