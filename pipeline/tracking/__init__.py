"""MLflow: tracked runs, saved models and the registry whose champion serves."""
