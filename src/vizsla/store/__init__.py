"""The database: intent (names, lineage). The only SQL of the project."""
