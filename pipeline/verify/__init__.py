"""The laws as a product: asked of the champion or of anybody's forecaster."""
