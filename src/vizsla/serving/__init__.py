"""A model as a service: no torch, no database."""
