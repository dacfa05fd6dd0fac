"""A run as a whole: what it is wired from, and how it ends."""
