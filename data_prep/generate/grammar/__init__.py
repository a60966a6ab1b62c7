"""A grammar in a language model's place: texts composed from templates, the same for one seed.

A grammar file and its banks of templates in; for what a step asks, a reply in the form that a model
would give. No network, no price, and no sense of its own: the templates show.
"""
