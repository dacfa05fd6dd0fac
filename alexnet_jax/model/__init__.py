"""The network: its operations, its variants as data, and the Flax module. Knows nothing of meshes."""
