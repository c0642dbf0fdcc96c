"""Train thousands of small networks in matched pairs and keep every result."""
