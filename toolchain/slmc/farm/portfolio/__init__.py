"""Which bundle each device is to have, by what a history says for and against it."""
