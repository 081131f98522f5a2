"""Engines: what builds a model that the one trainer trains.

Every engine's model has the parameters of `model.transformer.Transformer`, by its names and shapes, and returns its
`ModelOutput`. So initial weights, optimizers, learning rates of single experts, checkpoints and measurements do not
know which engine computes.
"""
