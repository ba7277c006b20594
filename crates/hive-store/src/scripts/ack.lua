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
  4.. sections of (lane_no, consumer, session, attach, work_ms, n), behind each n items of
      (id, count); attach 0 is not checked
RETURNS  { status, detail }
  OK  verdicts  a letter per item: `o` settled, `g` not pending here (settled before), `s` the
                lease is another's by now, `f` the session or its connection is an old one
IDEMPOTENT  yes: the second call answers `g` and counts nothing
COST        one XPENDING and one XACK a section; 2.5 us an item in batches of 100
INVARIANTS  M6 (only the lease's holder settles), M7 (an entry is settled once), E1 (fencing)
]]
local group, at = ARGV[1], 3
local now = tonumber(ARGV[2])
if now == 0 then now = tonumber(redis.call('TIME')[1]) * 1000 end
local verdicts, acked, work, members = {}, 0, 0, {}

for _ = 1, tonumber(ARGV[3]) do
  local lane, consumer, session = KEYS[2 + tonumber(ARGV[at + 1])], ARGV[at + 2], ARGV[at + 3]
  local attach, n = ARGV[at + 4], tonumber(ARGV[at + 6])
  if not members[consumer] then members[consumer] = redis.call('HGET', KEYS[1], consumer) or '' end
  local held_session, held_attach = string.match(members[consumer], '^(%S+) (%d+) ')
  local fresh = held_session == session and (attach == '0' or held_attach == attach)
  local counts, ended = {}, {}
  if fresh and n > 2 then
    -- The client sends its items by rising id, so first and last are the range.
    local rows = redis.call('XPENDING', lane, group, ARGV[at + 7], ARGV[at + 5 + 2 * n],
      n + 64, consumer)
    for _, row in ipairs(rows) do counts[row[1]] = row[4] end
  end
  local good = {}
  for i = 1, n do
    local id, count = ARGV[at + 5 + 2 * i], tonumber(ARGV[at + 6 + 2 * i])
    local verdict = 'o'
    if ended[id] then
      -- A client's retry that rides with its original.
      verdict = 'g'
    elseif not fresh or counts[id] ~= count then
      local row = redis.call('XPENDING', lane, group, id, id, 1)[1]
      if not row then
        verdict = 'g'
      elseif row[2] ~= consumer or fresh and row[4] ~= count then
        verdict = 's'
      elseif not fresh then
        verdict = 'f'
      end
    end
    if verdict == 'o' then
      good[#good + 1] = id
      ended[id] = true
    end
    verdicts[#verdicts + 1] = verdict
  end
  if #good > 0 then
    acked = acked + redis.call('XACK', lane, group, unpack(good))
    work = work + tonumber(ARGV[at + 5])
  end
  at = at + 6 + 2 * n
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
if acked < #verdicts then
  -- A write, so that a caller who waits for the disk waits for the call that settled them.
  redis.call('HINCRBY', KEYS[2], 'settled', 0)
end
return { 'OK', table.concat(verdicts) }
