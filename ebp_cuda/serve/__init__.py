"""An explorer in the browser, and attribution over HTTP: one server of one model, on this machine unless told else."""
