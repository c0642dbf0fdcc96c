"""Ray, and everything that exists only because of Ray."""
