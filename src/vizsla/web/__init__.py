"""The server: one REST interface over the verbs, for pages and programs."""
