"""What every room uses, and uses no room."""
