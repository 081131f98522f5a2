"""One run: the loop, its gradients, evaluation, monitor, journal and checkpoints."""
