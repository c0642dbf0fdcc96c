"""The store: rows, curves and all that is kept beside them."""
