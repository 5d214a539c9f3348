"""The speed of Converse2D in JAX against the paper's Algorithm 1 in PyTorch, timed in one run."""
