"""Agentic misalignment: would the model harm to keep itself or its goal from being replaced?"""
