"""One thread for every test: the tensors are small, and threads only wait."""

import torch

torch.set_num_threads(1)
