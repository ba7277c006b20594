#!lua flags=allow-oom
--[[
group_restore: give a group its Redis group back on lanes that lost it.

Why one script: what was in flight there is forgotten, ordering keys are let go and what waits is
counted anew in the step that makes entries readable; a fetch in between would find half of it.

KEYS
  1 groups    hash    group -> `<state> <version>`
  2 lanes     hash    lane ref -> id of its newest entry
  3 counters  hash    totals of the group
  4 served    hash    lane ref -> what it was last served
  5 busy      hash    ordering key -> `<lane ref>|<id>` in flight
  6 parked    zset    `<ordering key>\0<padded id>\0<lane ref>|<id>`, score 0
  7 sizes     hash    lane ref -> bytes that it holds
  8.. lane streams
ARGV
  1 group       name
  2 lane_count  u53     lanes that follow
  3.. lanes of (ref)
RETURNS  { status, lanes }
  RESTORED  flat list of lane ref, retained entries that will be delivered
  SOUND     none: every lane has the group; nothing was written
  GONE      none: the group is absent or being deleted; nothing was written
IDEMPOTENT  yes: the second call answers SOUND
COST        O(lanes); after the loss of a lane with ordering keys, once O(busy + parked)
INVARIANTS  M1 (from the oldest retained entry, since nothing tells how far it had come), M3, M5
]]
local group = ARGV[1]
local state = redis.call('HGET', KEYS[1], group)
if not state or string.sub(state, 1, 8) == 'deleting' then return { 'GONE', {} } end
local lost, is_lost, marked, waiting, pending, is_exact = {}, {}, false, 0, 0, true
for l = 1, tonumber(ARGV[2]) do
  local ref, stream, found = ARGV[2 + l], KEYS[7 + l], nil
  if redis.call('EXISTS', stream) == 1 then
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      if info[2] == group then found = info end
    end
  end
  if found then
    pending = pending + found[6]
    -- Unknown after some deletes: then there are no fewer than the rest shows.
    if found[12] then waiting = waiting + found[12] else is_exact = false end
  elseif redis.call('HEXISTS', KEYS[2], ref) == 1 then
    lost[#lost + 1] = { ref = ref, stream = stream }
    is_lost[ref] = true
    marked = marked or string.find(ref, '/p%dm')
  end
end
if #lost == 0 then return { 'SOUND', {} } end

local answer, bytes, sound, all_retained = {}, 0, pending + waiting, 0
for _, lane in ipairs(lost) do
  redis.call('XGROUP', 'CREATE', lane.stream, group, '0', 'MKSTREAM')
  redis.call('HDEL', KEYS[4], lane.ref)
  local retained = redis.call('XLEN', lane.stream)
  -- A lane that is gone holds nothing, whatever was counted.
  if retained == 0 then redis.call('HDEL', KEYS[7], lane.ref) end
  bytes = bytes + math.max(0, tonumber(redis.call('HGET', KEYS[7], lane.ref) or 0))
  waiting, all_retained = waiting + retained, all_retained + retained
  answer[#answer + 1] = lane.ref
  answer[#answer + 1] = retained
end
if marked then
  local busy = redis.call('HGETALL', KEYS[5])
  for i = 1, #busy, 2 do
    if is_lost[string.match(busy[i + 1], '^(.*)|')] then redis.call('HDEL', KEYS[5], busy[i]) end
  end
  for _, member in ipairs(redis.call('ZRANGE', KEYS[6], 0, -1)) do
    local mine = string.match(member, '^.*%z(.-)$')
    if is_lost[string.match(mine, '^(.*)|')] then redis.call('ZREM', KEYS[6], member) end
  end
end
-- Totals only rise: what is read again counts as published again, what is gone as settled.
local counts = redis.call('HMGET', KEYS[3], 'published', 'settled', 'bytes', 'scheduled')
local scheduled = math.max(0, tonumber(counts[4] or 0))
local before = tonumber(counts[1] or 0) - tonumber(counts[2] or 0) - pending
-- What is read again counts by what its lanes hold; of the rest the mean is kept.
if not is_exact then sound = math.max(sound, before + pending - all_retained) end
local unsettled = before + pending + scheduled
local mean = unsettled > 0 and math.max(0, tonumber(counts[3] or 0)) / unsettled or 0
redis.call('HSET', KEYS[3], 'bytes', string.format('%.0f', mean * (sound + scheduled) + bytes))
if waiting > before then
  redis.call('HINCRBY', KEYS[3], 'published', waiting - before)
elseif waiting < before and is_exact then
  redis.call('HINCRBY', KEYS[3], 'settled', before - waiting)
  redis.call('HINCRBY', KEYS[3], 'lost', before - waiting)
end
return { 'RESTORED', answer }
