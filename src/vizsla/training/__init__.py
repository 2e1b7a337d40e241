"""From a dataset to a run: the settings, the loop, its checkpoints and the worker process."""
