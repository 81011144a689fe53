"""`camoxpert` as one of several processes that share GPU 0 and talk over gloo: NCCL refuses that.

test_gpu.py starts it under torchrun, so that DDP is tried for real where there is a single GPU.
"""

import sys
from typing import Any

from camoxpert_nb.cli.main import main
from camoxpert_nb.machine import distributed
from camoxpert_nb.machine.devices import Devices, pick_devices
from camoxpert_nb.training import prepare


def first_gpu(*wanted: Any, **how: Any) -> Devices:
    return pick_devices(*wanted, **how | {"local_rank": 0})


if __name__ == "__main__":
    prepare.pick_devices = first_gpu
    distributed._on_gpus = lambda cards: False
    sys.exit(main())
