#!lua flags=allow-oom
--[[
letter_change: change a dead letter by compare-and-set, or remove it.

Why one script: two workers, or a worker and a person, that decide over one record at once must not
both do so; and what is counted must stay what is there.

KEYS
  1 letter     hash    the record, as in letter_take
  2 gone       zset    records that were removed lately, by when
  3 totals     hash    as in letter_take; `sent`, `succeeded`, `failed`: replays and their outcomes
  4 patterns   zset    fingerprint -> live records
  5 examples   hash    fingerprint -> what it is
  6 sources    zset    `<group>/<consumer>` -> live records
  7 due        zset    records that go back by themselves, by when
  8 live       zset    live records by when they died
  9 replaying  zset    records with a replay under way, by when it is looked at again
  10 awaiting  zset    records whose replay has no outcome yet, by when it is looked at
  11 counts    hash    `<job>:attempted`, `<job>:replayed`, `<job>:failed`
  12 before    zset    the records of the status before
  13 after     zset    the records of the status after
  14.. indexes zset    of a removal: the other indexes of the record
ARGV
  1 id            text
  2 version       u53     version that the caller read
  3 status        text    the status after; empty removes the record
  4 is_live       0|1     whether that is live
  5 dead_ms       u53
  6 category      text
  7 group         text
  8 stream        text
  9 fingerprint   text
  10 source       text
  11 state        json    empty: as it is
  12 change       json    a line for its history; empty: none
  13 edited       bytes   `=` and the payload that replays send from now on; empty: as it is
  14 due_ms       u53     0: not due
  15 replaying_ms u53     0: no replay under way
  16 awaiting_ms  u53     0: nothing is awaited
  17 count        text    which counts of the job grow, with blanks between; empty: none
  18 job          text    the job; empty for none
  19 limit        u53     the most that the job may attempt; 0 for no limit
  20 tally        text    which of `sent`, `succeeded`, `failed` grows in the totals; empty: none
  21 now_ms       u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, detail }
  DONE    version  changed or removed
  STALE   version  another version is there, or "" for none; nothing was written
  LIMIT   ""       the job has attempted all that it may; nothing was written
IDEMPOTENT  no: the second call answers STALE with the version that the first one made
COST        25 us
INVARIANTS  D4 (one replay at a time of a record), D5 (counts are those of the records)
]]
local row = redis.call('HMGET', KEYS[1], 'version', 'status', 'bytes', 'history')
local version, status = row[1], row[2]
if version ~= ARGV[2] then return { 'STALE', version or '' } end
local limit = tonumber(ARGV[19])
if limit > 0
    and tonumber(redis.call('HGET', KEYS[11], ARGV[18] .. ':attempted') or 0) >= limit then
  return { 'LIMIT', '' }
end
local id, dead_ms = ARGV[1], ARGV[5]
local was_live, is_live = redis.call('ZSCORE', KEYS[8], id) and true, ARGV[4] == '1'

local function count(field, by)
  if redis.call('HINCRBY', KEYS[3], field, by) == 0 then redis.call('HDEL', KEYS[3], field) end
end
if was_live ~= is_live then
  local by = is_live and 1 or -1
  if is_live then redis.call('ZADD', KEYS[8], dead_ms, id) else redis.call('ZREM', KEYS[8], id) end
  count('live', by)
  count('dead_ms', is_live and dead_ms or '-' .. dead_ms)
  for mark, value in pairs({ c = ARGV[6], g = ARGV[7], r = ARGV[8] }) do
    count(mark .. ':' .. value, by)
  end
  for key, member in pairs({ [KEYS[4]] = ARGV[9], [KEYS[6]] = ARGV[10] }) do
    if member ~= '' and tonumber(redis.call('ZINCRBY', key, by, member)) <= 0 then
      redis.call('ZREM', key, member)
      if key == KEYS[4] then redis.call('HDEL', KEYS[5], member) end
    end
  end
  if is_live and not redis.call('HGET', KEYS[5], ARGV[9]) then
    redis.call('HSET', KEYS[5], ARGV[9], redis.call('HGET', KEYS[1], 'example') or '')
  end
end
local function place(key, at)
  if at == '0' then redis.call('ZREM', key, id) else redis.call('ZADD', key, at, id) end
end
place(KEYS[7], ARGV[14])
place(KEYS[9], ARGV[15])
place(KEYS[10], ARGV[16])
for name in string.gmatch(ARGV[17], '%a+') do
  redis.call('HINCRBY', KEYS[11], ARGV[18] .. ':' .. name, 1)
end
if ARGV[20] ~= '' then redis.call('HINCRBY', KEYS[3], ARGV[20], 1) end

if ARGV[3] == '' then
  local now = tonumber(ARGV[21])
  if now == 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  for i = 12, #KEYS do redis.call('ZREM', KEYS[i], id) end
  redis.call('DEL', KEYS[1])
  count('records', -1)
  count('bytes', '-' .. row[3])
  count('s:' .. status, -1)
  -- A worker that stalled may still take what was handed over ten minutes ago.
  redis.call('ZADD', KEYS[2], now, id)
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 1800000)
  return { 'DONE', '0' }
end
if status ~= ARGV[3] then
  redis.call('HSET', KEYS[1], 'status', ARGV[3])
  redis.call('ZREM', KEYS[12], id)
  redis.call('ZADD', KEYS[13], dead_ms, id)
  count('s:' .. status, -1)
  count('s:' .. ARGV[3], 1)
end
local bytes = 0
if ARGV[11] ~= '' then
  bytes = #ARGV[11] - redis.call('HSTRLEN', KEYS[1], 'state')
  redis.call('HSET', KEYS[1], 'state', ARGV[11])
end
if ARGV[13] ~= '' then
  local old = redis.call('HSTRLEN', KEYS[1], 'edited')
  redis.call('HSET', KEYS[1], 'edited', string.sub(ARGV[13], 2))
  bytes = bytes + #ARGV[13] - 1 - old
end
if ARGV[12] ~= '' then
  local lines, kept = {}, nil
  for line in string.gmatch(row[4] .. '\n' .. ARGV[12], '[^\n]+') do lines[#lines + 1] = line end
  -- The first line says how it began.
  while #lines > 50 do table.remove(lines, 2) end
  kept = table.concat(lines, '\n')
  redis.call('HSET', KEYS[1], 'history', kept)
  bytes = bytes + #kept - #row[4]
end
if bytes ~= 0 then
  redis.call('HINCRBY', KEYS[1], 'bytes', bytes)
  redis.call('HINCRBY', KEYS[3], 'bytes', bytes)
end
return { 'DONE', tostring(redis.call('HINCRBY', KEYS[1], 'version', 1)) }
