"""A Model Spec, Markdown or text, as clauses with stable ids."""
