"""Engines build the models that the trainer trains.

The model of every engine has the parameters of `model.transformer.Transformer`, with the same names and shapes, and
returns its `ModelOutput`. So initial weights, optimizers, learning rates of single experts, checkpoints and metrics do
not depend on the engine.
"""
