"""Which questions of a table are open, what further seeds would do to each, and which to buy next."""
