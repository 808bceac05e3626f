"""The service of lesson 25: one process that answers many people. `http.create(settings)` makes the app."""
