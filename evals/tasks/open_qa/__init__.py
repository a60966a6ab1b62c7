"""Open questions about a spec's subject, answered freely and judged for how well they follow it."""
