"""The command line: each command opens the workspace, calls one verb and prints."""
