"""Laws of the benchmarks: tasks, scores and forecasts are what the protocols say."""
