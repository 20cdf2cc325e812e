"""From a Dockerfile and a context to an image: plan, cache keys, steps, export."""
