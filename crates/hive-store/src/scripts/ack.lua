#!lua flags=allow-oom
--[[
ack: settle deliveries of plain lanes as handled.

Why one script: between a check of the lease and the XACK another consumer may get the entry; a
late ack would then settle work that somebody else has begun.

KEYS
  1 members   hash    consumer -> `<session> <attach> ...`
  2 counters  hash    totals and one-minute buckets of the group
  3.. lane streams
ARGV
  1 group          name
  2 now_ms         u53     0, or the time instead of Redis' own (tests)
  3 section_count  u53     sections that follow
  4.. sections of (lane_no, consumer, session, work_ms, n), behind each n items of (id, count)
RETURNS  { status, detail }
  OK  verdicts  a letter per item: `o` settled, `g` not pending here (settled before), `s` the
                lease is another's by now
IDEMPOTENT  yes: the second call answers `g` and counts nothing
COST        one XPENDING and one XACK a section; 2.5 us an item in batches of 100
INVARIANTS  M6 (only the lease's holder settles), M7 (an entry is settled once)
]]
local group, at = ARGV[1], 3
local now = tonumber(ARGV[2])
if now == 0 then now = tonumber(redis.call('TIME')[1]) * 1000 end
local verdicts, acked, work, sessions = {}, 0, 0, {}

for _ = 1, tonumber(ARGV[3]) do
  local lane, consumer, session = KEYS[2 + tonumber(ARGV[at + 1])], ARGV[at + 2], ARGV[at + 3]
  local n = tonumber(ARGV[at + 5])
  if sessions[consumer] == nil then
    local row = redis.call('HGET', KEYS[1], consumer)
    sessions[consumer] = row and string.match(row, '^%S+') or false
  end
  local fresh = sessions[consumer] == session
  local counts = {}
  if fresh and n > 2 then
    -- The client sends its items by rising id, so first and last are the range.
    local rows = redis.call('XPENDING', lane, group, ARGV[at + 6], ARGV[at + 4 + 2 * n],
      n + 64, consumer)
    for _, row in ipairs(rows) do counts[row[1]] = row[4] end
  end
  local good = {}
  for i = 1, n do
    local id, count = ARGV[at + 4 + 2 * i], ARGV[at + 5 + 2 * i]
    local verdict = 'o'
    if not fresh or not counts[id] or counts[id] ~= tonumber(count) then
      local row = redis.call('XPENDING', lane, group, id, id, 1)[1]
      if not row then
        verdict = 'g'
      elseif not fresh or row[2] ~= consumer or row[4] ~= tonumber(count) then
        verdict = 's'
      end
    end
    if verdict == 'o' then good[#good + 1] = id end
    verdicts[#verdicts + 1] = verdict
  end
  if #good > 0 then
    acked = acked + redis.call('XACK', lane, group, unpack(good))
    work = work + tonumber(ARGV[at + 4])
  end
  at = at + 5 + 2 * n
end

if acked > 0 then
  local minute = math.floor(now / 60000)
  local slot = tostring(minute % 6)
  if redis.call('HGET', KEYS[2], 'minute' .. slot) ~= tostring(minute) then
    redis.call('HSET', KEYS[2], 'minute' .. slot, minute, 'acked' .. slot, 0, 'failed' .. slot, 0,
      'work' .. slot, 0)
  end
  redis.call('HINCRBY', KEYS[2], 'settled', acked)
  redis.call('HINCRBY', KEYS[2], 'acked', acked)
  redis.call('HINCRBY', KEYS[2], 'acked' .. slot, acked)
  redis.call('HINCRBY', KEYS[2], 'work' .. slot, work)
end
return { 'OK', table.concat(verdicts) }
