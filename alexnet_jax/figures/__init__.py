"""A run as pictures and as one page: what it learnt, what it confuses, how its towers came to differ."""
