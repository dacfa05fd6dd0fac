"""Several processes that are one run: how they meet, watch over one another, stop and exit."""
