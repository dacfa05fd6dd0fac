"""A run as pictures and as one page: what it learned, what it confuses, how its towers came to differ."""
