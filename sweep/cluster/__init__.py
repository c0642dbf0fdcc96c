"""Ray, and all that exists because of Ray."""
