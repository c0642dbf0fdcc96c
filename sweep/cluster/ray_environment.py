"""What Ray reads from the environment while it is imported; what the user has set is left alone."""

import os
import secrets
from typing import Final

QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Lost workers are told in our own words, and standard output is the caller's: Ray prints nothing of its own.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # The store is what remembers: Tune's snapshot, one file rewritten whole, is of no use to us.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # What a dashboard would show: figures of the machine every five seconds, names of logs twice a second.
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "LOG_NAME_UPDATE_INTERVAL_S": "10",
}

for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)

if "RAY_AUTH_MODE" not in os.environ:
    # Ray opens ports even for one machine: a token of this process keeps others out, and nothing is written to
    # the user's home.
    os.environ["RAY_AUTH_MODE"] = "token"
    if not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
