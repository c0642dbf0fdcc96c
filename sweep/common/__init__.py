"""What every room may use; it imports none of them."""
