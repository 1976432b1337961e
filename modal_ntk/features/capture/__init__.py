"""From one pass over a batch to the gradients of its samples: how modules are watched, and each route proved."""
