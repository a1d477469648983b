"""Bytes to arrays and back: files, headers, images, transforms."""
