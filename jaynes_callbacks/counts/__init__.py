"""Count values on one fixed grid: the grid, the passes over values, whole tensors."""
