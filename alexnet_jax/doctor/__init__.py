"""Why does it not learn? What is measured of a run, and what it means."""
