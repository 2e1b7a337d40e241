"""Worker processes: started in their own process group, followed by their events."""
