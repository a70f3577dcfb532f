"""`asynctrack.import_runs`: a whole file store into any other store."""
