"""What builds and checks the book. Nothing here is needed to use the package."""
