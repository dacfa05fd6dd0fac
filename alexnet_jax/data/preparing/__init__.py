"""Makes prepared datasets: from folders, archives, TFDS, or drawn here."""
