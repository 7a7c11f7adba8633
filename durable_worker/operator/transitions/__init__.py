"""PURE: what one input does to one run. No clock, no I/O, no randomness; time is an argument."""
