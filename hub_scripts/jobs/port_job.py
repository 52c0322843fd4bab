# /// script
# requires-python = ">=3.11"
# dependencies = ["hf-bico"]
#
# [tool.hf-jobs]
# flavor = "a10g-small"
# timeout = "2h"
# secrets = ["HF_TOKEN"]
# ///
"""One port as a Hugging Face Job, on the hardware that the header above names:

    hf jobs uv run hub_scripts/jobs/port_job.py org/ft --to org/new-base --dataset org/task --push

The words behind the script are those of `hf-bico port`. `hf` reads the header where it submits the job: options that
stand before the script, such as `--flavor` and `--timeout`, hold before it, and your token goes along as a secret. Many
ports are a fleet: `hf-bico fleet plan.yaml --on hf-jobs` submits the same command for each (docs/fleet.md).
"""

import sys

from hf_bico.cli.main import main

KEEPS = ("--push", "--push-to", "--dry-run", "--help", "-h")
"""Words without which a job's result would be lost."""


def keeps(words: list[str]) -> bool:
    """Return whether something is left of a port by these words when the job's disk is gone."""
    return any(word.partition("=")[0] in KEEPS for word in words)


if __name__ == "__main__":
    if not keeps(sys.argv[1:]):
        print("Error: a job's disk is lost when it ends: add --push or --push-to REPO", file=sys.stderr)
        sys.exit(2)
    sys.argv.insert(1, "port")
    main()
