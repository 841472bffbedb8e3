"""The laws: what must hold whatever changes; each test says how it was shown to fail."""
