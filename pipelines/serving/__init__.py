"""HTTP server of a registered model."""
