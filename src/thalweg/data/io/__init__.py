"""Files that a stranger may have written."""
