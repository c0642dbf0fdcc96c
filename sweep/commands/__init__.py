"""The workflows behind the command line."""
