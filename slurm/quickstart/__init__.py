"""The quickstart: one experiment on one machine, and its screen."""
