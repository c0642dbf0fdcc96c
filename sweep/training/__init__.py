"""One array of runs, trained on one device."""
