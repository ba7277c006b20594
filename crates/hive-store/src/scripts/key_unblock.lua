#!lua flags=allow-oom
--[[
key_unblock: let an ordering key go on that a dead letter blocks.

Why one script: between the look at who is next and its turn, another call would let it go too, and
two entries of one key would be in flight.

KEYS
  1 busy      hash    ordering key -> `<lane ref>|<id>` in flight, or `!<lane ref>|<id>` of the dead
                      entry that blocks it
  2 parked    zset    `<ordering key>\0<padded id>\0<lane ref>|<id>`, score 0
  3 counters  hash    totals of the group
  4.. per lane its stream, its ready zset
ARGV
  1 group       name
  2 ageing_ms   u53     as in fetch
  3 order       text    ordering key
  4 lane_count  u53     lanes that follow
  5.. lanes of (ref)
RETURNS  { status, detail }
  UNBLOCKED  ""   the next message of the key is ready, if there is one
  FREE       ""   nothing blocks the key; nothing was written
  LANES      ref  the next message is in a lane that the caller does not know; nothing was written
IDEMPOTENT  yes: the second call answers FREE
COST        O(log n), and the body of the next message; passes by up to a hundred that are gone
INVARIANTS  M5 (one entry of an ordering key in flight)
]]
local group, ageing, order = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local holder = redis.call('HGET', KEYS[1], order)
if not holder or string.sub(holder, 1, 1) ~= '!' then return { 'FREE', '' } end
local lanes = {}
for l = 1, tonumber(ARGV[4]) do
  lanes[ARGV[4 + l]] = { key = KEYS[2 + l * 2], ready = KEYS[3 + l * 2] }
end
-- One that is gone would hold the key for ever: the auditor ends it, and the next one has its turn.
local member, mine, ref, id, lane
for skip = 0, 99 do
  member = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. order .. '\0', '(' .. order .. '\1', 'LIMIT',
    skip, 1)[1]
  if not member then break end
  mine = string.match(member, '^.*%z(.-)$')
  ref, id = string.match(mine, '^(.*)|(.-)$')
  lane = lanes[ref]
  if not lane then return { 'LANES', ref } end
  if redis.call('XRANGE', lane.key, id, id)[1] then break end
  member = nil
end
redis.call('HINCRBY', KEYS[3], 'blocked', -1)
if not member then
  redis.call('HDEL', KEYS[1], order)
  return { 'UNBLOCKED', '' }
end
local priority, ms = tonumber(string.match(ref, '/p(%d)')), tonumber(string.match(id, '^%d+'))
local score = ms - priority * ageing
if ageing == 0 then score = (9 - priority) * 8796093022208 + ms end
redis.call('ZREM', KEYS[2], member)
redis.call('HSET', KEYS[1], order, mine)
redis.call('XCLAIM', lane.key, group, '~ready', 0, id, 'JUSTID')
redis.call('ZADD', lane.ready, score, mine)
return { 'UNBLOCKED', '' }
