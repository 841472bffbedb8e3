"""How good the forecasts are: metrics, baselines, and a backtest that runs the live engine."""
