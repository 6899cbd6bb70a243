"""Packets between nodes, encrypted and proven by key, and the stream that carries process images."""
