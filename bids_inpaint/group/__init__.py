"""The group level."""
