"""What logs to a run by itself: web services (`asgi`), and counts and percentiles per window (`aggregator`)."""
