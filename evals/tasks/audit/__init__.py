"""A per-clause audit: does the model keep each testable tenet of a spec, however it is asked?"""
