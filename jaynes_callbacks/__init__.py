"""Watch whether training drives a network to arbitrage equilibrium."""
