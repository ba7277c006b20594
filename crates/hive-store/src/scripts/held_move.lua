#!lua flags=allow-oom
--[[
held_move: move direct messages that waited for their consumer into its group's direct lane.

Why one script: between adding and deleting, a crash would lose or double the message.

KEYS
  1 groups    hash    group -> `<state> <version>`
  2 lanes     hash    lane ref -> id of its newest entry
  3 counters  hash    totals of the group
  4 held      stream  the lane that holds them
  5 target    stream  the group's direct lane
  6 sizes     hash    lane ref -> bytes that it holds
ARGV
  1 group       name
  2 target_ref  ref
  3 limit       u53     most messages to move
  4 held_ref    ref
RETURNS  { status, moved }
  OK    moved  so many; call again until it is 0
  GONE  ""     the group is absent or being deleted; nothing was written
IDEMPOTENT  yes
COST        4 us a message; reads 4 MiB, give or take a page of ten
INVARIANTS  M1 (nothing accepted is lost)
]]
local state = redis.call('HGET', KEYS[1], ARGV[1])
if not state or string.sub(state, 1, 8) == 'deleting' then return { 'GONE', '' } end
if redis.call('XLEN', KEYS[4]) == 0 then return { 'OK', '0' } end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 and redis.call('XLEN', KEYS[5]) == 0 then
  -- A lane that was retired has a stream still, and nothing in it.
  redis.call('UNLINK', KEYS[5])
  redis.call('HDEL', KEYS[6], ARGV[2] .. ' retired')
  redis.call('XGROUP', 'CREATE', KEYS[5], ARGV[1], '0', 'MKSTREAM')
end
local limit, newest, moved, bytes, largest, is_end = tonumber(ARGV[3]), nil, 0, 0, nil, false
while moved < limit and bytes < 4194304 and not is_end do
  local fits = math.max(1, math.floor((4194304 - bytes) / (largest or 1048576)))
  local want = math.min(10, limit - moved, fits)
  local page = redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', want)
  is_end = #page < want
  for _, entry in ipairs(page) do
    local body = entry[2][2]
    newest = redis.call('XADD', KEYS[5], '*', 'm', body)
    redis.call('XDEL', KEYS[4], entry[1])
    moved, bytes, largest = moved + 1, bytes + #body, math.max(largest or 1, #body)
  end
end
redis.call('HSET', KEYS[2], ARGV[2], newest)
redis.call('HINCRBY', KEYS[3], 'published', moved)
redis.call('HINCRBY', KEYS[3], 'bytes', bytes)
redis.call('HINCRBY', KEYS[6], ARGV[2], bytes)
redis.call('HINCRBY', KEYS[6], ARGV[4], -bytes)
return { 'OK', tostring(moved) }
