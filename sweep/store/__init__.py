"""The store: rows, curves and everything kept beside them."""
