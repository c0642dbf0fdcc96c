"""Readers of files that others made, a module a format: nothing is unpacked to disk, nothing in a file is run."""
