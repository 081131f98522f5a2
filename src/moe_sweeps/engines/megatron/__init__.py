"""engine=megatron: the model computed by megatron-core, an optional package, imported only where a run needs it."""
