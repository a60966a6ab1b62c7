"""What a text must pass to become a row: each gate returns why it refuses, or None."""
