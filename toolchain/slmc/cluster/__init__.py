"""Steps of a build on a Ray cluster: what goes to a worker and comes back, and what a lost worker costs."""
