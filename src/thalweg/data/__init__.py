"""From an AnnData to cells: the one border at which input is checked.

`cells` holds the class and the one function that reads it, by a `recipe` of columns; `io` reads files of strangers.
"""
