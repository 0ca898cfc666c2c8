"""Where a training step's time goes: its operations by time on the device, as a table.

    python experiments/benchmarks/training/profile_step.py [--tiny]

The step is lm's GPT-2 as bench.py times it, in the largest size for the device, compiled on a GPU.
Prints the share of each kind of operation and the twenty longest ones; writes nothing.
"""

import re

import bench
import torch
from torch.profiler import ProfilerActivity, profile

STEPS = 1 if bench.TINY else 5
KINDS = {
    "matrix products": r"gemm|matmul|::mm|::bmm|addmm|cutlass|nvjet|cublas|linear|mkldnn",
    "attention": r"attention|flash|fmha|softmax",
    "loss": r"cross_entropy|nll|log_softmax",
    "optimizer": r"adam|foreach|multi_tensor|lerp",
    "clipping": r"norm",
    "copies": r"copy|Memcpy|Memset|fill_|zero_",
    "compiled, elementwise": r"triton",
}


def kind_of(name: str) -> str:
    """The kind of an operation by the name of its kernel."""
    found = (kind for kind, pattern in KINDS.items() if re.search(pattern, name, re.IGNORECASE))
    return next(found, "other")


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    step = bench.ours(
        bench.CASES[device][0], bench.GPT2, "on" if device == "cuda" else "off", device
    )
    for number in range(3):
        step(number)
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
        torch.cuda.synchronize()
    with profile(activities=activities) as recorded:
        for number in range(3, 3 + STEPS):
            step(number)
        if device == "cuda":
            torch.cuda.synchronize()
    times: dict[str, float] = {}
    for event in recorded.key_averages():
        on_device = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        times[event.key] = times.get(event.key, 0.0) + on_device / STEPS / 1e3  # ms
    total = sum(times.values()) or 1.0
    shares: dict[str, float] = {}
    for name, each in times.items():
        shares[kind_of(name)] = shares.get(kind_of(name), 0.0) + each / total
    print("| kind | share of a step |\n|---|--:|")
    for kind, share in sorted(shares.items(), key=lambda pair: -pair[1]):
        print(f"| {kind} | {share:.1%} |")
    print("\n| ms a step | operation |\n|--:|---|")
    for name, each in sorted(times.items(), key=lambda pair: -pair[1])[:20]:
        print(f"| {each:.3f} | `{name[:90]}` |")


if __name__ == "__main__":
    main()
