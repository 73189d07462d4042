"""Reading the cells of a stored fit."""
