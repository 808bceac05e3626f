"""Programs that people use: the service of lesson 25, the demos of lesson 26, and `compare` on your own data."""
