"""Which of a dataset's trained configurations, or which two of them together, shall segment new images; and what is done to their masks."""
