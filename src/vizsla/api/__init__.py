"""The verbs, by noun: what the command line, programs and pages do is one of these functions."""
