"""The participant level: a run, from its options to its exit code."""
