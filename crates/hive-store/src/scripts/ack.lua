#!lua flags=allow-oom
--[[
ack: settle first deliveries of plain lanes as handled.

Why one script: between a check of the lease and the XACK another consumer may get the entry; a
late ack would then settle work that somebody else has begun.

KEYS
  1 members   hash    consumer -> `<session> <attach> ...`
  2 counters  hash    totals and one-minute buckets of the group
  3 replies   hash    slot -> `<call> <verdicts>`, of the calling process
  4 sizes     hash    lane ref -> bytes that it holds
  5.. lane streams
ARGV
  1 group          name
  2 now_ms         u53     0, or the time instead of Redis' own (tests)
  3 call           u53     number of this call: sent again it answers what it answered
  4 section_count  u53     sections that follow
  5 keep           0|1     0: what is settled is deleted where no other group reads the lane
  6.. sections of (lane_no, ref, consumer, session, attach, work_ms, n), behind each n items of
      (id, bytes) by rising id, all delivered for the first time; attach 0 is not checked
RETURNS  { status, detail }
  OK  verdicts  a letter per item: `o` settled, `g` not pending here (settled before), `s` the
                lease is another's by now, `f` the session or its connection is an old one
IDEMPOTENT  yes: the same call number answers the stored verdicts, another one `g`
COST        one XPENDING and one XACK a section; 2.5 us an item in batches of 100
INVARIANTS  M6 (only the lease's holder settles), M7 (an entry is settled once), E1 (fencing)
]]
local group, keep, at = ARGV[1], ARGV[5] == '1', 5
local slot = tostring(tonumber(ARGV[3]) % 64)
local number, stored = string.match(redis.call('HGET', KEYS[3], slot) or '', '^(%d+) (%a+)$')
if number == ARGV[3] then
  -- A write, so that a caller who waits for the disk waits for the call that was stored.
  redis.call('EXPIRE', KEYS[3], 3600)
  return { 'OK', stored }
end
local now = tonumber(ARGV[2])
if now == 0 then now = tonumber(redis.call('TIME')[1]) * 1000 end
local minute = math.floor(now / 60000)
local sixth = tostring(minute % 6)
local is_counted = redis.call('HGET', KEYS[2], 'minute' .. sixth) == tostring(minute)
local verdicts, acked, work, bytes, members = {}, 0, 0, 0, {}

for _ = 1, tonumber(ARGV[4]) do
  local lane, ref = KEYS[4 + tonumber(ARGV[at + 1])], ARGV[at + 2]
  local consumer, session = ARGV[at + 3], ARGV[at + 4]
  local attach, n = ARGV[at + 5], tonumber(ARGV[at + 7])
  if not members[consumer] then members[consumer] = redis.call('HGET', KEYS[1], consumer) or '' end
  local held_session, held_attach = string.match(members[consumer], '^(%S+) (%d+) ')
  local fresh = held_session == session and (attach == '0' or held_attach == attach)
  local counts, ended = {}, {}
  if fresh and n > 2 then
    local rows = redis.call('XPENDING', lane, group, ARGV[at + 8], ARGV[at + 6 + n * 2],
      n + 64, consumer)
    for _, row in ipairs(rows) do counts[row[1]] = row[4] end
  end
  local good, size = {}, 0
  for i = 1, n do
    local id = ARGV[at + 6 + i * 2]
    local verdict = 'o'
    if ended[id] then
      -- A client's retry that rides with its original.
      verdict = 'g'
    elseif not fresh or counts[id] ~= 1 then
      local row = redis.call('XPENDING', lane, group, id, id, 1)[1]
      if not row then
        verdict = 'g'
      elseif row[2] ~= consumer or fresh and row[4] ~= 1 then
        verdict = 's'
      elseif not fresh then
        verdict = 'f'
      end
    end
    if verdict == 'o' then
      good[#good + 1] = id
      size = size + tonumber(ARGV[at + 7 + i * 2])
      ended[id] = true
    end
    verdicts[#verdicts + 1] = verdict
  end
  if #good > 0 then
    acked = acked + redis.call('XACK', lane, group, unpack(good))
    work = work + tonumber(ARGV[at + 6])
    bytes = bytes + size
    if not keep and #redis.call('XINFO', 'GROUPS', lane) == 1 then
      redis.call('XDEL', lane, unpack(good))
      if size > 0 then redis.call('HINCRBY', KEYS[4], ref, -size) end
    end
  end
  at = at + 7 + n * 2
end

if acked > 0 then
  if not is_counted then
    redis.call('HSET', KEYS[2], 'minute' .. sixth, minute, 'acked' .. sixth, 0,
      'failed' .. sixth, 0, 'work' .. sixth, 0)
  end
  redis.call('HINCRBY', KEYS[2], 'settled', acked)
  redis.call('HINCRBY', KEYS[2], 'acked', acked)
  if bytes > 0 then redis.call('HINCRBY', KEYS[2], 'bytes', -bytes) end
  redis.call('HINCRBY', KEYS[2], 'acked' .. sixth, acked)
  redis.call('HINCRBY', KEYS[2], 'work' .. sixth, work)
end
if acked < #verdicts then
  -- A write, so that a caller who waits for the disk waits for the call that settled them.
  redis.call('HINCRBY', KEYS[2], 'settled', 0)
end
local reply = table.concat(verdicts)
if acked > 0 then
  redis.call('HSET', KEYS[3], slot, ARGV[3] .. ' ' .. reply)
  redis.call('EXPIRE', KEYS[3], 3600)
end
return { 'OK', reply }
