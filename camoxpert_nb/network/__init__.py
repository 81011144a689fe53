"""The network, its losses, weights, export."""
