#!/bin/sh
# Generates the stubs in agenthive/v1 from proto/. Needs `pip install grpcio-tools==1.66.2`.
set -eu
cd "$(dirname "$0")"
python3 -m grpc_tools.protoc -I ../../proto --python_out=. --pyi_out=. --grpc_python_out=. \
  agenthive/v1/messaging.proto agenthive/v1/group.proto agenthive/v1/task.proto \
  agenthive/v1/workflow.proto
