"""The stream engine: carried state, one step for each tick, forecasts for every series."""
