"""The device mesh, where every array lives on it, and every collective."""
