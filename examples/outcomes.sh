#!/bin/sh
# What an agent can say about a message, by its exit code. Run by:
#
#   hive work --group reviews --exec examples/outcomes.sh
set -eu
payload=$(cat)
echo "attempt $HIVE_ATTEMPT of $HIVE_MESSAGE_ID ($HIVE_MESSAGE_TYPE)" >&2

case $payload in
  *provider-is-busy*) exit 75 ;;                       # not now: given back, not counted
  *not-for-us*) echo "cannot be handled" >&2; exit 65 ;; # never: to the dead letters
  *fails*) echo "did not work" >&2; exit 1 ;;          # failed: tried again after a backoff
esac
printf 'reviewed: %s\n' "$payload"                     # done: stdout is the result
