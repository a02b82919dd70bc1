"""Drills: bare calculations in five tiers, and word problems by their number of steps, for SFT."""
