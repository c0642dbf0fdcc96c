"""Readers of untrusted files, one module per format: nothing is unpacked to disk, no code in a file is run."""
