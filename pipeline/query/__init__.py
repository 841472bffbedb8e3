"""Forecasts are asked for: by series, device, metric, origin, lead time and as-of instant."""
