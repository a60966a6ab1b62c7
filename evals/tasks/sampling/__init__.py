"""What evaluations that generate text share: settings, the run with Inspect, rows."""
