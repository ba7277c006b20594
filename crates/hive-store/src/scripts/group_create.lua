#!lua
--[[
group_create: make a group on a shard, with a Redis group on each lane for all groups.

Why one script: a publish between two lanes would reach the group on one and miss it on the other.

KEYS
  1 groups    hash    group -> `<state> <version>`; `~stream` while the stream is being deleted
  2 lanes     hash    lane ref -> id of its newest entry
  3 counters  hash    totals of the group
  4 sizes     hash    lane ref -> bytes that it holds
  5.. streams of the lanes for all groups
ARGV
  1 group       name
  2 version     u53     version of the definition
  3 start       earliest|latest
  4 lane_count  u53     lanes that follow
  5.. lanes of (ref)
RETURNS  { status, detail }
  CREATED  backlog  made; so many retained messages are before it
  EXISTS   state    it is there already, as `<state> <version>`; if it is not being deleted, this
                    version is noted where that is newer
  CLOSED   ""       the stream is being deleted; nothing was written
  LANES    ""       the lanes for all groups are not those of the caller; nothing was written
IDEMPOTENT  yes: the second call answers EXISTS
COST        O(lanes)
INVARIANTS  M1 (never at `$` unless asked), M3 (a lane has all its groups)
]]
local state = redis.call('HGET', KEYS[1], ARGV[1])
if state then
  -- What is left of an earlier group of the name is this one's from now on: who still deletes that
  -- one is too late.
  local word, version = string.match(state, '^(%S+) (%d+)$')
  if word ~= 'deleting' and tonumber(version) < tonumber(ARGV[2]) then
    redis.call('HSET', KEYS[1], ARGV[1], word .. ' ' .. ARGV[2])
  end
  return { 'EXISTS', state }
end
if redis.call('HEXISTS', KEYS[1], '~stream') == 1 then return { 'CLOSED', '' } end
local named, shared = {}, 0
for l = 1, tonumber(ARGV[4]) do named[ARGV[4 + l]] = true end
for _, ref in ipairs(redis.call('HKEYS', KEYS[2])) do
  if string.sub(ref, 1, 1) == '/' and not string.find(ref, '@', 1, true) then
    shared = shared + 1
    if not named[ref] then return { 'LANES', '' } end
  end
end
if shared ~= tonumber(ARGV[4]) then return { 'LANES', '' } end
local backlog, from = 0, '0'
local bytes = 0
if ARGV[3] == 'latest' then from = '$' end
for l = 1, shared do
  redis.call('XGROUP', 'CREATE', KEYS[4 + l], ARGV[1], from, 'MKSTREAM')
  if from == '0' then
    backlog = backlog + redis.call('XLEN', KEYS[4 + l])
    bytes = bytes + math.max(0, tonumber(redis.call('HGET', KEYS[4], ARGV[4 + l]) or 0))
  end
end
redis.call('HSET', KEYS[1], ARGV[1], 'active ' .. ARGV[2])
redis.call('HSET', KEYS[3], 'published', backlog, 'settled', 0, 'bytes', bytes)
return { 'CREATED', tostring(backlog) }
