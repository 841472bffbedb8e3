"""Observations become a fitted model and an MLflow run."""
