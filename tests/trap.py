"""A file that acts when it is unpickled, to see that nothing unpickles it."""

import os


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)
