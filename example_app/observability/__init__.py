"""Story 2 as a trace: what `make trace` runs."""
