"""An agent in plain Python: no SDK, only the stubs generated from proto/ (see docs/protocol.md)."""

import argparse
import queue
import random
import sys
import threading
import time

import grpc
from agenthive.v1 import messaging_pb2 as hive
from agenthive.v1 import messaging_pb2_grpc as services

WINDOW = 64  # deliveries held at once
# A gateway that went without a trace is noticed within 10 s.
OPTIONS = [("grpc.keepalive_time_ms", 5000), ("grpc.keepalive_timeout_ms", 5000)]
TAKEN = hive.SETTLE_STATUS_OK, hive.SETTLE_STATUS_GONE
FINAL = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT


def work(message):
    """The work itself: what it returns is the result of the message."""
    return message.payload.upper()


def entry(lease):
    """Names the message: equal for all deliveries of it, while the rest of the token changes."""
    return "|".join(lease.split("|")[:3])


def begun(outcomes):
    return [outcome.lease for outcome in outcomes if outcome.HasField("ack")]


def consume(url, args, state):
    """One connection: joins and works until it is drained, is cut, or `count` are acked."""
    held, outbox, ended = state["held"], queue.SimpleQueue(), threading.Event()
    send = lambda **frame: outbox.put(hive.ConsumeRequest(**frame))
    leases = lambda: [outcome.lease for outcome in list(held.values())]
    send(join=hive.Join(group=args.group, consumer_id=args.id, session=state["session"],
                        max_in_flight=WINDOW, concurrency=1, held_leases=leases()))

    def heartbeats(interval):
        while not ended.wait(interval):
            send(heartbeat=hive.Heartbeat(leases=leases(), begun=begun(list(held.values()))))

    with grpc.insecure_channel(url.removeprefix("http://"), OPTIONS) as channel:
        stub = services.MessagingServiceStub(channel)
        stream = stub.Consume(iter(outbox.get, None), metadata=[("hive-namespace", args.namespace)])
        try:
            for frame in stream:
                fresh = [delivery.lease for delivery in frame.deliveries.deliveries]
                if frame.HasField("joined"):
                    state["session"], credit = frame.joined.session, 0
                    fresh = leases()  # their answers were lost: settled once more, gone or not
                    interval = frame.joined.heartbeat_interval.ToTimedelta().total_seconds()
                    threading.Thread(target=heartbeats, args=[interval], daemon=True).start()
                credit = max(0, credit - len(frame.deliveries.deliveries) - frame.revoke.messages)
                for delivery in frame.deliveries.deliveries:  # heartbeats name them from here on
                    held.setdefault(entry(delivery.lease), hive.Outcome()).lease = delivery.lease
                for delivery in frame.deliveries.deliveries:
                    outcome = held[entry(delivery.lease)]
                    if not outcome.HasField("ack"):  # else done before: settled by its new token
                        outcome.ack.result = work(hive.Message.FromString(delivery.message))
                outcomes = [held[entry(lease)] for lease in fresh]
                if outcomes:
                    send(settle=hive.SettleBatch(outcomes=outcomes))
                for result in frame.settled.results:
                    outcome = held.get(entry(result.lease))
                    if outcome is not None and outcome.lease == result.lease:
                        del held[entry(result.lease)]
                        state["acked"] += result.status in TAKEN
                if state["acked"] >= args.count:
                    send(leave=hive.Leave())
                    outbox.put(None)
                    for _ in stream:  # until the gateway has taken the leave
                        pass
                if frame.HasField("drain"):
                    return
                wanted = min(WINDOW, args.count - state["acked"]) - len(held) - credit
                if wanted > 0 and not frame.HasField("revoke"):
                    send(credit=hive.Credit(messages=wanted))
                    credit += wanted
        finally:
            ended.set()
            outbox.put(None)


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--url", default="http://127.0.0.1:8000", help="gateways, commas between")
    flags.add_argument("--group", required=True)
    flags.add_argument("--count", type=int, default=1000, help="messages to work before it ends")
    flags.add_argument("--id", default=f"python-{random.randrange(1 << 32):08x}")
    flags.add_argument("--namespace", default="default")
    args = flags.parse_args()
    state, urls, attempt = {"session": "", "held": {}, "acked": 0}, args.url.split(","), 0
    while state["acked"] < args.count:
        url = urls[attempt % len(urls)]
        try:
            consume(url, args, state)
        except grpc.RpcError as error:
            print(f"{url}: {error.code().name} {error.details()}", file=sys.stderr, flush=True)
            if error.code() in FINAL and state["acked"] < args.count:
                sys.exit(1)  # another process joined under this id, or the request is wrong
        attempt += 1
        time.sleep(random.uniform(0.05, 0.2) if state["acked"] < args.count else 0)
    print(f"acked {state['acked']}")


if __name__ == "__main__":
    main()
