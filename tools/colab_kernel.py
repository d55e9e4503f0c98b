"""A kernel that a chapter takes for Colab's, as far as a chapter can see.

Colab's kernel has a module ``google.colab``, an interactive shell of a class in it,
and runs ``!`` commands in bash, after which ``_exit_code`` holds their exit status
(github.com/googlecolab/colabtools: ``_shell.py``, ``_system_commands.py``). This file
does those four things and nothing else. It is a script, run by the Python of a
rehearsal's environment; see `tools.colab`.
"""

import subprocess
import sys
from types import ModuleType

sys.path.pop(0)  # the folder of this file: Colab does not have it

from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell


class Shell(ZMQInteractiveShell):
    """Prints ``<google.colab._shell.Shell object at ...>``."""

    __module__ = "google.colab._shell"

    def system(self, cmd):
        """Run a command in bash and print what it says."""
        done = subprocess.run(
            ["/bin/bash", "-c", self.var_expand(cmd, depth=1)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout, end="")
        self.user_ns["_exit_code"] = done.returncode


class Kernel(IPythonKernel):
    """The usual kernel with that shell."""

    def _shell_class_default(self):
        return Shell


if __name__ == "__main__":
    sys.modules["google.colab"] = ModuleType("google.colab")
    IPKernelApp.launch_instance(kernel_class=Kernel)
