"""Random damage to all that comes from outside: the right tensors come out, or one line."""
