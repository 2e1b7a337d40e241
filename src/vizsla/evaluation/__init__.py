"""From a model and a split to figures: the pass over the pictures, the report file and the page people read."""
