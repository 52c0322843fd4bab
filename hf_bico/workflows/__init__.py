"""One file a thing that can be done; the only room in which all others meet."""
