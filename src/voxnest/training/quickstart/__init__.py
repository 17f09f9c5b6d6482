"""From nothing to a running training on a public corpus: what is needed, what is there, what is left to do.

`pieces` is a table of what is needed, `planning` compares it with a folder, `running` does the rest with `unpacking`.
"""
