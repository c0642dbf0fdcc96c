"""The environment that Ray and Tune read, set before Ray is imported; sweep/README.md says what users can set."""

import logging
import os
import secrets
import sys
from typing import Final

FOREIGN: Final = (
    *("RAY_AIR_LOCAL_CACHE_DIR", "RAY_AIR_FULL_TRACEBACKS", "RAY_TUNE_CALLBACKS", "RAY_CHDIR_TO_TRIAL_DIR"),
    *("RAY_RUNTIME_ENV_HOOK", "RAY_START_HOOK", "RAY_TRAIN_V2_ENABLED", "RAY_NAMESPACE", "RAY_CLIENT_MODE"),
    *("RAY_OVERRIDE_RESOURCES", "RAY_OVERRIDE_LABELS", "RAY_OVERRIDE_NODE_ID_FOR_TESTING"),
    *("RAY_DEBUG", "RAY_DEBUG_POST_MORTEM", "RAY_PROFILING", "RAY_LOG_TO_STDERR", "RAY_LOG_TO_DRIVER"),
)
"""Meant for the user's other programs: they break a launch, change where it trains, or clutter its output."""

QUIET: Final = {
    # Under `uv run`, Ray would zip the current folder and build a separate environment for workers.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # We report lost workers ourselves, and standard output belongs to the caller: Ray prints nothing.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # All state is in the store: Tune's snapshot, one file rewritten each time, is of no use to us.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # For a dashboard, Ray would collect machine statistics every five seconds and log names twice a second.
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "LOG_NAME_UPDATE_INTERVAL_S": "10",
}

if "ray" not in sys.modules:  # a worker's environment has Ray's own variables
    for _name in [name for name in os.environ if name in FOREIGN or name.startswith("TUNE_")]:
        del os.environ[_name]

for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)

if "RAY_AUTH_MODE" not in os.environ:
    # Ray opens ports even for one machine: a token of this process keeps others out, and nothing is written to
    # the user's home.
    os.environ["RAY_AUTH_MODE"] = "token"
    if not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def hush() -> None:
    """Has Ray say nothing, once it is imported: lost workers are told in our own words, without its tracebacks."""
    for logger in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
