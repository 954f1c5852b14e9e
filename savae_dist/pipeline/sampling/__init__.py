"""Where new codes come from: samplers and training posteriors."""
