"""The console: pages for people, over what the REST routes answer."""
