"""The decoder families we compile, in the forms that backends need."""
