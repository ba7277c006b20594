#!lua
--[[
run_create: store a new run of a workflow, its first dispatches and its timer.

Why one script: an id that names a run which is not whole, or a run whose first tasks nobody
dispatches, would hang for ever; the same submit sent again must find what it made.

KEYS
  1 ids       hash    workflow id -> `<run id> <digest>` of its newest run
  2 head      hash    the run's head
  3 plan      string  its definition, without payloads
  4 contents  hash    task number -> what its message says
  5 states    string  a record of fixed length per task
  6 notes     hash    task number -> texts of its state
  7 history   stream  what happened in it
  8 runs      zset    run ids by creation time
  9 current   zset    run ids of its status, by creation time
  10 timers   zset    run ids by when they must be looked at
  11 outbox   stream  what routers owe to shards
  12 results  hash    task number -> result
  13 from     hash    contents of the run that this one begins anew, its own where there is none
  14 kept     hash    results of that run, its own where there is none
  15 finished zset    run ids by when they ended
ARGV
  1 workflow_id    name
  2 run_id         name
  3 digest         hex     of what was submitted
  4 replaces       id      run id that the id may name instead, or empty for none
  5 plan           bytes
  6 states         bytes
  7 due_ms         u53     when it must be looked at, 0 for never
  8 now_ms         u53     0, or the time instead of Redis' own (tests)
  9 head_count     u53     fields of the head that follow, besides version and created_ms
  10 content_count u53     contents that follow
  11 note_count    u53     notes that follow
  12 dispatch_count u53    outbox entries that follow
  13 record_count  u53     history records that follow
  14 drop_count    u53     tasks that follow whose results are not taken over
  15 finished      0|1     1: it ends with its first step
  16.. fields of (name, value), contents of (task, bytes), notes of (task, bytes), outbox entries of
      (bytes), records of (bytes), drops of (task)
RETURNS  { status, detail, owed, newest }
  CREATED  created ms     stored; ids of the outbox entries, id of the newest history record
  EXISTS   run id         the id names this run, of the same digest; nothing was written
  OTHER    run id         the id names this run, of another digest, or none that could be
                          replaced; nothing was written
IDEMPOTENT  yes: the second call answers EXISTS
COST        O(tasks)
INVARIANTS  W1 (a run is stored whole), W2 (one run per id and digest)
]]
local known = redis.call('HGET', KEYS[1], ARGV[1])
local run, digest = string.match(known or '', '^(%S+) (%S+)$')
if run and run ~= ARGV[4] then
  -- A write, so that a caller who waits for the disk waits for the call that stored it.
  redis.call('HSET', KEYS[1], ARGV[1], known)
  if digest == ARGV[3] then return { 'EXISTS', run, {}, '' } end
  return { 'OTHER', run, {}, '' }
end
-- What is begun anew must be there: without its contents agents would get empty messages.
if ARGV[4] ~= '' and not run then return { 'OTHER', '', {}, '' } end
local now = tonumber(ARGV[8])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
redis.call('SET', KEYS[3], ARGV[5])
redis.call('SET', KEYS[5], ARGV[6])
redis.call('HSET', KEYS[2], 'version', 1, 'created_ms', now)
local at = 15
for _ = 1, tonumber(ARGV[9]) do
  redis.call('HSET', KEYS[2], ARGV[at + 1], ARGV[at + 2])
  at = at + 2
end
if KEYS[13] ~= KEYS[4] then
  redis.call('COPY', KEYS[13], KEYS[4])
  redis.call('COPY', KEYS[14], KEYS[12])
end
-- Many fields in one call: a call costs more than a field. 4,000 values are well below what Lua
-- unpacks.
for _, part in ipairs({ { KEYS[4], ARGV[10] }, { KEYS[6], ARGV[11] } }) do
  local last = at + 2 * part[2]
  while at < last do
    local upto = math.min(last, at + 4000)
    redis.call('HSET', part[1], unpack(ARGV, at + 1, upto))
    at = upto
  end
end
local owed, newest = {}, ''
for i = 1, tonumber(ARGV[12]) do
  owed[i] = redis.call('XADD', KEYS[11], '*', 'm', ARGV[at + 1])
  at = at + 1
end
for _ = 1, tonumber(ARGV[13]) do
  newest = redis.call('XADD', KEYS[7], '*', 'm', ARGV[at + 1])
  at = at + 1
end
local last = at + ARGV[14]
while at < last do
  local upto = math.min(last, at + 4000)
  redis.call('HDEL', KEYS[12], unpack(ARGV, at + 1, upto))
  at = upto
end
redis.call('ZADD', KEYS[8], now, ARGV[2])
redis.call('ZADD', KEYS[9], now, ARGV[2])
if ARGV[7] ~= '0' then redis.call('ZADD', KEYS[10], ARGV[7], ARGV[2]) end
if ARGV[15] == '1' then redis.call('ZADD', KEYS[15], now, ARGV[2]) end
return { 'CREATED', string.format('%.0f', now), owed, newest }
