"""Tasks of EleutherAI's lm-evaluation-harness, for regressions: what has training cost?"""
