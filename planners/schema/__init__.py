"""The parts of a plan, one file a subject. `planners.plan` puts them together and is what others import from."""
