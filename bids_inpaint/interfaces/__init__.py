"""Thin Nipype wrappers: files in, files out; the numerics live in the modules they call."""
