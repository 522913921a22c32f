"""The phantom cohort: head-and-neck PET/CT of several hospitals with a clinical table, drawn from a stated truth."""
