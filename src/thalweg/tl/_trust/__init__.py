"""What `tl.assess` looks at, and the rule of its verdict."""
