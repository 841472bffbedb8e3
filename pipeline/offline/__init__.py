"""Work on closed history, for reports: nothing in here may reach a forecaster."""
