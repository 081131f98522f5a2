"""`moe-sweeps decide`: the runs that its questions need, batch by batch, and the looks at them."""
