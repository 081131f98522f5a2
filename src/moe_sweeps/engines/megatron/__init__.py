"""engine=megatron: the model computed by megatron-core, an optional package that is imported where a run needs it."""
