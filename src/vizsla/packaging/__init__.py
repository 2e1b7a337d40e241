"""A service as a folder from which it is built and run elsewhere: image, manifests, unit. No torch."""
