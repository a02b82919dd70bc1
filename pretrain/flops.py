"""Model FLOPs utilisation: which share of the hardware's arithmetic a training step uses."""

import torch

# Dense bfloat16 tensor-core peak in FLOP/s per device, from the vendors' data sheets (no sparsity).
PEAK_FLOPS = {
    "A100": 312e12,
    "A10G": 70e12,
    "A40": 150e12,
    "A6000": 155e12,
    "B200": 2250e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "L4": 121e12,
    "L40S": 362e12,
    "RTX 3090": 71e12,
    "RTX 4090": 165e12,
    "V100": 125e12,
}


def peak_flops(device: torch.device) -> float | None:
    """Peak of one such device, or None where the table does not know it (every CPU and MPS)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    # "H100 PCIe" before "H100": the longest name that fits is the right one. "L4" must not match "L40".
    fitting = [key for key in PEAK_FLOPS if f" {key} " in f" {name.replace('-', ' ')} "]
    return PEAK_FLOPS[max(fitting, key=len)] if fitting else None


def utilisation(tokens_per_second: float, flops_per_token: int, device: torch.device, devices: int) -> float | None:
    """MFU between 0 and 1 over `devices` of this kind, or None where the peak is unknown."""
    peak = peak_flops(device)
    return None if peak is None else tokens_per_second * flops_per_token / (peak * devices)
