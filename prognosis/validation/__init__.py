"""How good a prognosis is at a hospital that it has not seen: nested cross-validation, controls, ceiling and intervals."""
