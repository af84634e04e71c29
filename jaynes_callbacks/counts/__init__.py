"""Values in, counts out: the magnitude grid, passes over values, and counting of tensors."""
