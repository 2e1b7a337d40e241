"""One file a noun; each route is a few lines over one verb."""
