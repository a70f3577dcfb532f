"""MLflow's own databases as stores: its tables, written in bulk, without a server in between."""
