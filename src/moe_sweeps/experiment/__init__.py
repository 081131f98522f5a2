"""One run's description: schema, composition, identity, and the frozen folder that a worker reads."""
