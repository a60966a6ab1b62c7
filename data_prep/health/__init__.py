"""What a corpus is like before weeks are trained on it: documents in; figures, gates, a page out.

`command` is the way in. Each further module measures one thing and returns a `Section` of figures;
`examine` puts them together, `screen`, `page` and `--json` show the same `HealthReport`.
"""
