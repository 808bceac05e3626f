"""The three applications of lesson 26, each with a page."""
