"""Search spaces: settings, runs and their identity."""
