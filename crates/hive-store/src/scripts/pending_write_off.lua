#!lua flags=allow-oom
--[[
pending_write_off: end the bookkeeping of a delivery whose entry is gone.

Why one script: its pending row, its places in the indexes, its ordering key and the counters end
together, or the next message of the key waits for ever. What became of the message nobody knows: it
is counted as settled, so that what waits is true again, and as nothing else but lost.

KEYS
  1 counters  hash    totals of the group
  2 delayed   zset    `<lane ref>|<id>` by due time
  3 busy      hash    ordering key -> `<lane ref>|<id>` in flight
  4 parked    zset    `<ordering key>\0<padded id>\0<lane ref>|<id>`, score 0
  5 failures  hash    `<lane ref>|<id>` -> count and records
  6.. per lane its stream, its ready zset
ARGV
  1 group       name
  2 ageing_ms   u53     as in fetch
  3 ref         ref     of the entry's lane
  4 id          id      of the entry
  5 order       text    ordering key that KEYS[3] has it under, or ""; checked again
  6 parked      text    its member of KEYS[4], or ""
  7 lane_count  u53     lanes that follow
  8.. lanes of (ref)
RETURNS  { status, detail }
  LOST    count  so many are written off: it, and what was parked right behind it and is gone too
  THERE   ""     the entry is there; nothing was written
  ABSENT  ""     it is not pending; nothing was written
  LANES   ref    the next message of its key is in a lane that the caller does not know; nothing
                 was written
IDEMPOTENT  yes: the second call answers ABSENT
COST        O(log n)
INVARIANTS  M4, M5 (a key that nobody holds is let go), M7
]]
local group, ageing, member = ARGV[1], tonumber(ARGV[2]), ARGV[3] .. '|' .. ARGV[4]
local lane_of = {}
for l = 1, tonumber(ARGV[7]) do
  lane_of[ARGV[7 + l]] = { key = KEYS[4 + l * 2], ready = KEYS[5 + l * 2] }
end
local lane = lane_of[ARGV[3]]
local function is_there(stream, id) return redis.call('XRANGE', stream, id, id)[1] end
if not redis.call('XPENDING', lane.key, group, ARGV[4], ARGV[4], 1)[1] then
  return { 'ABSENT', '' }
end
if is_there(lane.key, ARGV[4]) then return { 'THERE', '' } end

-- Whoever waits for the key: the oldest that is there, and those before it that are gone.
local order, gone, heir = ARGV[5], {}, nil
local holds = order ~= '' and redis.call('HGET', KEYS[3], order) == member
local behind = holds and redis.call('ZRANGEBYLEX', KEYS[4], '[' .. order .. '\0',
  '(' .. order .. '\1', 'LIMIT', 0, 100) or {}
for _, parked in ipairs(behind) do
  local mine = string.match(parked, '^.*%z(.-)$')
  local ref, id = string.match(mine, '^(.*)|(.-)$')
  local other = lane_of[ref]
  if not other then return { 'LANES', ref } end
  local one = { parked = parked, mine = mine, ref = ref, id = id, lane = other }
  if is_there(other.key, id) then heir = one break end
  gone[#gone + 1] = one
end

-- How large they were nobody knows: the mean goes with them.
local c = redis.call('HMGET', KEYS[1], 'published', 'settled', 'scheduled', 'bytes')
local unsettled = tonumber(c[1] or 0) - tonumber(c[2] or 0) + tonumber(c[3] or 0)
local bytes = math.max(0, tonumber(c[4] or 0))

local lost = 0
local function write_off(stream, ready, id, mine, parked)
  lost = lost + redis.call('XACK', stream, group, id)
  redis.call('ZREM', ready, mine)
  redis.call('ZREM', KEYS[2], mine)
  redis.call('HDEL', KEYS[5], mine)
  if parked ~= '' then redis.call('ZREM', KEYS[4], parked) end
end
write_off(lane.key, lane.ready, ARGV[4], member, ARGV[6])
for _, one in ipairs(gone) do
  write_off(one.lane.key, one.lane.ready, one.id, one.mine, one.parked)
end
local cut = unsettled > 0 and math.floor(math.min(1, lost / unsettled) * bytes) or 0
-- Lua writes -0 for nothing, which is no integer to Redis.
if cut > 0 then redis.call('HINCRBY', KEYS[1], 'bytes', string.format('%.0f', -cut)) end
redis.call('HINCRBY', KEYS[1], 'settled', lost)
redis.call('HINCRBY', KEYS[1], 'lost', lost)
if heir then
  local priority = tonumber(string.match(heir.ref, '/p(%d)'))
  local ms = tonumber(string.match(heir.id, '^%d+'))
  local score = ms - priority * ageing
  if ageing == 0 then score = (9 - priority) * 8796093022208 + ms end
  redis.call('ZREM', KEYS[4], heir.parked)
  redis.call('HSET', KEYS[3], order, heir.mine)
  redis.call('XCLAIM', heir.lane.key, group, '~ready', 0, heir.id, 'JUSTID')
  redis.call('ZADD', heir.lane.ready, score, heir.mine)
elseif holds then
  redis.call('HDEL', KEYS[3], order)
end
return { 'LOST', tostring(lost) }
