"""GSM-SBS: products taken apart step by step, a warm start before reinforcement learning."""
