"""Run files: YAML in; frozen, checked settings out. No torch."""
