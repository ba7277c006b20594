#!/bin/sh
# An agent in one line of shell: counts the words of each message.
#
#   hive group create words
#   examples/shell-agent.sh &
#   hive publish --group words 'one two three'
set -eu
exec hive work --group words --concurrency 4 --timeout 1m --exec 'wc -w'
