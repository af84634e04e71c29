"""Where counts come from: a model's parameters and activations, with or without a trainer."""
