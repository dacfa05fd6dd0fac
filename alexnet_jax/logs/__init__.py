"""What a run writes while it goes: the terminal, metrics.jsonl, TensorBoard, trackers."""
