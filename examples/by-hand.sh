#!/bin/sh
# Leases one message, looks at it and settles it: an agent made of a person or a cron job.
# Needs `jq`.
set -eu
group=${1:?usage: by-hand.sh GROUP}
delivery=$(hive fetch --group "$group" --consumer "$(id -un)" --wait 10s -o jsonl)
[ -n "$delivery" ] || { echo "nothing to do"; exit 0; }
printf '%s\n' "$delivery" | jq .message
lease=$(printf '%s' "$delivery" | jq -r .lease)
hive settle ack "$lease" --group "$group" --result "seen by $(id -un)"
