"""Causal forecasting networks: torch and Lightning only, tensors in, tensors out."""
