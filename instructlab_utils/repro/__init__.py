"""Infrastructure that a learner never needs to open: assets, runner, records, experiments, tables, command line."""
