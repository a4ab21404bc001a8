"""A worker process for tests.scaling: it tells Ray of the hook before the device queue's own connection is made."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from dreampose_core.jobs import worker
from dreampose_core.settings import Settings

if __name__ == "__main__":
    if "device" in sys.argv:
        import ray

        hook = {"worker_process_setup_hook": "slow_model.install"}
        ray.init(
            address=Settings.from_environment().ray_address,
            namespace="dreampose",
            runtime_env=hook,
            log_to_driver=False,
        )
    sys.exit(worker.main())
