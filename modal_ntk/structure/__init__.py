"""Structure of a pool: constrained clusters and their pseudo-labels, neighbour graphs and diffusion over them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
