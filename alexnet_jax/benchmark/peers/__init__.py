"""The same work in PyTorch and in TensorFlow, which are imported nowhere else, in processes of their own."""
