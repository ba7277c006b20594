#!lua flags=allow-oom
--[[
run_commit: write one step of a run: what changed, what is owed for it, and when to look again.

Why one script: a completion whose dependants are not in the outbox would hang the run, and one
that is there twice would start a step twice. The version is the fence: of two routers that both
worked out a step from the same state, one writes and the other reads anew.

KEYS
  1 head      hash    the run's head
  2 states    string  a record of fixed length per task
  3 notes     hash    task number -> texts of its state
  4 results   hash    task number -> result
  5 history   stream  what happened in the run
  6 before    zset    run ids of the status that the run had, by creation time
  7 after     zset    run ids of the status that it has
  8 timers    zset    run ids by when they must be looked at
  9 outbox    stream  what routers owe to shards
  10 finished zset    run ids by when they ended
  11 plan     string  the definition, without contents
  12 contents hash    task number -> what its message says
  13 answers  hash    task number -> question and answer of a task that asked for input
ARGV
  1 run_id         name
  2 version        u53     version of the state that the step was worked out from
  3 record_bytes   u53     length of a record of a task
  4 due_ms         u53     when it must be looked at, 0 for never
  5 finished       word    `1` it ended with this step, `0` it is going on
  6 history_max    u53     most records that are kept of a run
  7 now_ms         u53     0, or the time instead of Redis' own (tests)
  8 head_count     u53     fields of the head that follow
  9 state_count    u53     states that follow
  10 note_count    u53     notes that follow
  11 result_count  u53     results that follow
  12 outbox_count  u53     outbox entries that follow
  13 record_count  u53     history records that follow
  14 plan_count    u53     1 where the definition changed and follows, else 0
  15 content_count u53     contents that follow
  16 answer_count  u53     questions and answers that follow
  17.. fields of (name, value), states of (task, record), notes of (task, bytes), results of (task,
      bytes), outbox entries of (bytes), records of (bytes), plan, contents of (task, bytes),
      answers of (task, bytes); empty notes, results and answers are removed
RETURNS  { status, detail, owed, newest }
  OK        new version    written; ids of the outbox entries, id of the newest history record
  CONFLICT  version        the state is another; nothing was written
  GONE      ""             there is no such run; nothing was written
IDEMPOTENT  no: a call whose answer was lost answers CONFLICT, and the state shows whether it was
COST        O(what changed); 5 us a task made ready
INVARIANTS  W1 (a run is stored whole), W3 (a step and what it owes are one), W4 (a step is taken
            once)
]]
local version = redis.call('HGET', KEYS[1], 'version')
if not version then return { 'GONE', '', {}, '' } end
if version ~= ARGV[2] then return { 'CONFLICT', version, {}, '' } end
-- Versions grow with the time, so that a Redis that lost steps never comes to one twice: a router
-- that remembers a lost state would take it for the one that is there.
local now, next_version = tonumber(ARGV[7]), tonumber(version) + 1
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
  next_version = math.max(next_version, time[1] * 1000000 + time[2])
end
next_version = string.format('%.0f', next_version)
local created = redis.call('HGET', KEYS[1], 'created_ms')
redis.call('HSET', KEYS[1], 'version', next_version)
local at = 16
for _ = 1, tonumber(ARGV[8]) do
  redis.call('HSET', KEYS[1], ARGV[at + 1], ARGV[at + 2])
  at = at + 2
end
for _ = 1, tonumber(ARGV[9]) do
  redis.call('SETRANGE', KEYS[2], tonumber(ARGV[at + 1]) * ARGV[3], ARGV[at + 2])
  at = at + 2
end
-- Many fields in one call: a call costs more than a field. What Lua unpacks is far more.
local function put(key, count)
  local set, gone = {}, {}
  for _ = 1, tonumber(count) do
    if ARGV[at + 2] == '' then
      gone[#gone + 1] = ARGV[at + 1]
    else
      set[#set + 1], set[#set + 2] = ARGV[at + 1], ARGV[at + 2]
    end
    if #set >= 4000 then
      redis.call('HSET', key, unpack(set))
      set = {}
    end
    if #gone >= 4000 then
      redis.call('HDEL', key, unpack(gone))
      gone = {}
    end
    at = at + 2
  end
  if #set > 0 then redis.call('HSET', key, unpack(set)) end
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
end
put(KEYS[3], ARGV[10])
put(KEYS[4], ARGV[11])
local owed, newest = {}, ''
for i = 1, tonumber(ARGV[12]) do
  owed[i] = redis.call('XADD', KEYS[9], '*', 'm', ARGV[at + 1])
  at = at + 1
end
local room = tonumber(ARGV[6]) - redis.call('XLEN', KEYS[5])
for _ = 1, tonumber(ARGV[13]) do
  if room > 0 then newest = redis.call('XADD', KEYS[5], '*', 'm', ARGV[at + 1]) end
  room, at = room - 1, at + 1
end
if ARGV[14] == '1' then
  redis.call('SET', KEYS[11], ARGV[at + 1])
  at = at + 1
end
put(KEYS[12], ARGV[15])
put(KEYS[13], ARGV[16])
if KEYS[6] ~= KEYS[7] then
  redis.call('ZREM', KEYS[6], ARGV[1])
  redis.call('ZADD', KEYS[7], created, ARGV[1])
end
if ARGV[4] == '0' then
  redis.call('ZREM', KEYS[8], ARGV[1])
else
  redis.call('ZADD', KEYS[8], ARGV[4], ARGV[1])
end
if ARGV[5] == '1' then
  redis.call('ZADD', KEYS[10], now, ARGV[1])
else
  redis.call('ZREM', KEYS[10], ARGV[1])
end
return { 'OK', next_version, owed, newest }
