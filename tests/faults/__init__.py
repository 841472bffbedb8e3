"""Faults, injected into real processes: nothing acknowledged is lost, nothing is stored twice."""
