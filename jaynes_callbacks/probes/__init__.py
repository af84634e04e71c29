"""Look into a live model: its weights, its activations, its gradients, its ranks."""
