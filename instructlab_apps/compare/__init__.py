"""`compare`: every method worth trying on a reader's own labelled texts, within the reader's minutes."""
