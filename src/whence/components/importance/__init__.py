"""How much each parameter component matters at each token: tensors, networks, or everything alike."""
