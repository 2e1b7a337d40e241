"""Pictures: from the bytes of a file to the array that a network is fed."""
