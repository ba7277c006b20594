#!lua flags=allow-oom
--[[
counters_mend: take out of a group's waiting messages those that are in none of its lanes.

Why one script: a message that is published, read or settled between the counting and the mending
would be counted away.

KEYS
  1 groups    hash    group -> `<state> <version>`
  2 lanes     hash    lane ref -> id of its newest entry
  3 counters  hash    totals of the group
  4.. lane streams
ARGV
  1 group       name
  2 lane_count  u53     lanes that follow
  3.. lanes of (ref)
RETURNS  { status, count }
  MENDED  count  so many waited by the counters and nowhere else: they count as settled, and as lost
  SOUND   ""     some lane has messages that wait, or none should; nothing was written
  LANES   ref    the caller does not know this lane; nothing was written
  GONE    ""     the group is absent, being deleted, or gone from a lane; nothing was written
IDEMPOTENT  yes: the second call answers SOUND
COST        O(lanes)
INVARIANTS  M1 (told as lost, since nobody knows what became of them)
]]
local group, named = ARGV[1], {}
local state = redis.call('HGET', KEYS[1], group)
if not state or string.sub(state, 1, 8) == 'deleting' then return { 'GONE', '' } end
for l = 1, tonumber(ARGV[2]) do named[ARGV[2 + l]] = true end
for _, ref in ipairs(redis.call('HKEYS', KEYS[2])) do
  local owner, name = string.match(ref, '^([^/]*)/(.+)$')
  local mine = owner == group or owner == '' and not string.find(name, '@', 1, true)
  if mine and not named[ref] then return { 'LANES', ref } end
end
local pending = 0
for l = 1, tonumber(ARGV[2]) do
  local found
  if redis.call('EXISTS', KEYS[3 + l]) == 1 then
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[3 + l])) do
      if info[2] == group then found = info end
    end
  end
  if not found then return { 'GONE', '' } end
  if redis.call('XRANGE', KEYS[3 + l], '(' .. found[8], '+', 'COUNT', 1)[1] then
    return { 'SOUND', '' }
  end
  pending = pending + found[6]
end
local counts = redis.call('HMGET', KEYS[3], 'published', 'settled', 'scheduled', 'bytes')
local count = tonumber(counts[1] or 0) - tonumber(counts[2] or 0) - pending
if count <= 0 then return { 'SOUND', '' } end
-- How large they were nobody knows: the mean goes with them.
local left = pending + tonumber(counts[3] or 0)
local cut = math.floor(math.max(0, tonumber(counts[4] or 0)) * count / (count + left))
-- Lua writes -0 for nothing, which is no integer to Redis.
if cut > 0 then redis.call('HINCRBY', KEYS[3], 'bytes', string.format('%.0f', -cut)) end
redis.call('HINCRBY', KEYS[3], 'settled', count)
redis.call('HINCRBY', KEYS[3], 'lost', count)
return { 'MENDED', tostring(count) }
