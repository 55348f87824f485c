"""Dtypes that the kernels take; they compute in float32."""

import torch

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
