"""The steps, a file each: items in, items out, over calls that are journalled."""
