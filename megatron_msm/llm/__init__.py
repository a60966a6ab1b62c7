"""Calls to language models: a call in, the reply and what it cost out, each paid once.

Whoever asks (generation, judges) gives `Call`s to a `Pool`; the journal on disk answers those that
were answered before, a client of an endpoint the others. No torch here.
"""
