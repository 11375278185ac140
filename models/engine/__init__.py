"""The fast forward: static shapes, fused projections, keys and values in buffers, and on a GPU captured graphs."""
