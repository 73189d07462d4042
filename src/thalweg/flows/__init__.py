"""What is learned, run and stored: flows between populations, on arrays and `Cells`. No verb of `tl` is known here.

`fitting` makes a `flow` of `Cells` by a method of `methods`; `store` keeps it in an AnnData and reads it back; `carry`
runs it: cells and times in, clouds, weights and sources out; `evaluate` scores predictions of held-out times.
"""
