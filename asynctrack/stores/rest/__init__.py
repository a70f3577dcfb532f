"""An MLflow server over HTTP, and what Databricks adds to it."""
