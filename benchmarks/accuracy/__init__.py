"""The accuracy of forecasts by two published protocols, on any file: `python -m benchmarks.accuracy --help`."""
