#!/bin/sh
# Any AI command line is an agent: it reads a prompt on stdin and writes an answer on stdout.
# AGENT_COMMAND names it; `cat` stands in where none is set, and answers with the prompt.
set -eu
: "${AGENT_COMMAND:=cat}"
hive group create prompts --lease 30s --max-attempts 5
exec hive work --group prompts --concurrency 2 --timeout 30m --exec "$AGENT_COMMAND"
