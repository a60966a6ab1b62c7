"""From a Model Spec to documents and chats, by calls to language models.

A spec and a GENERATE.yaml in; rows with their clauses, rejects with their reasons, and a dataset
folder out. spec/ parses, steps/ asks (a file a step), gates/ refuse, corpus/ writes.
"""
