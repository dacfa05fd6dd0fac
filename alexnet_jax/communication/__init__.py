"""What the compiled step says between devices, here and on hardware that is not here."""
