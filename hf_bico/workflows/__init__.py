"""What can be done, one thing a file; the only room in which all others meet."""
