"""`compare`: methods tuned equally on a file of your own, and a report. Used in lesson 26."""
