"""Features of masks and images: pure functions of arrays with a registry, and the table that out-of-fold masks give."""
