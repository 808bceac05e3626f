"""A served model: queue, batches, keys, limits, metrics, versions. Taught in lesson 25."""
