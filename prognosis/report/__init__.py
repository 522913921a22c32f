"""The report: one page that can be read by itself, without a network."""
