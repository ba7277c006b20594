#!lua flags=allow-oom
--[[
lane_retire: take an unused lane out of use, and later remove its stream.

Why one script: a message that is published, scheduled or leased between the look and the removal
would vanish. Two steps, since a caller that still knows the lane must not find its stream gone: an
ack that is late would be taken for a loss of data.

KEYS
  1 lanes  hash    lane ref -> id of its newest entry
  2 sizes  hash    lane ref -> bytes that it holds; `<lane ref> scheduled` -> messages; `<lane ref>
                   retired` -> ms
  3 lane   stream
  4.. per group of the shard, lane ref -> what it was last served
ARGV
  1 ref      ref     of the lane
  2 idle_ms  u53     retire it when so long nothing was added; remove it so long after that
  3 now_ms   u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, detail }
  RETIRED  ""  no longer one of the lanes; the next publish makes it anew
  REMOVED  ""  it was retired for long enough: its stream is gone
  USED     ""  it has entries, deliveries or delayed messages, was used lately, or lost its stream;
               nothing was written, but that a lane that came back is forgotten as retired
IDEMPOTENT  yes
COST        O(groups)
INVARIANTS  M1 (nothing accepted is lost)
]]
local lane, ref, retired = KEYS[3], ARGV[1], ARGV[1] .. ' retired'
local now = tonumber(ARGV[3])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local since = now - tonumber(ARGV[2])
local is_used = redis.call('XLEN', lane) > 0
  or tonumber(redis.call('HGET', KEYS[2], ref .. ' scheduled') or 0) > 0
local last_ms, is_there = 0, redis.call('EXISTS', lane) == 1
if is_there then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', lane)) do
    is_used = is_used or info[6] > 0
  end
  local info = redis.call('XINFO', 'STREAM', lane)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      last_ms = tonumber(string.match(info[i + 1], '^%d+'))
    end
  end
end
if redis.call('HEXISTS', KEYS[1], ref) == 1 then
  redis.call('HDEL', KEYS[2], retired)
  -- A lane whose stream is gone lost data: whoever uses it tells.
  if is_used or not is_there or last_ms > since then return { 'USED', '' } end
  redis.call('HDEL', KEYS[1], ref)
  redis.call('HDEL', KEYS[2], ref)
  redis.call('HSET', KEYS[2], retired, string.format('%.0f', now))
  for k = 4, #KEYS do redis.call('HDEL', KEYS[k], ref) end
  return { 'RETIRED', '' }
end
local at = tonumber(redis.call('HGET', KEYS[2], retired) or now)
if is_used or at > since then return { 'USED', '' } end
redis.call('UNLINK', lane)
redis.call('HDEL', KEYS[2], retired)
return { 'REMOVED', '' }
