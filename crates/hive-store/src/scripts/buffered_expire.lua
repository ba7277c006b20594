#!lua flags=allow-oom
--[[
buffered_expire: end old messages of a lane that no group reads.

Why one script: a group that is created between the look and the deletion would miss them.

KEYS
  1 lane           stream
  2 dead           stream  dead letters of the shard
  3 settled_below  hash    lane ref -> id up to which all was settled when its last group went
  4 sizes          hash    lane ref -> bytes that it holds
ARGV
  1 ref         ref     of the lane
  2 max_age_ms  u53     keep messages for so long; 0 keeps no settled one, and ends no other
  3 limit       u53     most messages to end in this call
  4 now_ms      u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, expired, deleted, more }
  OK    expired, deleted, 0|1  so many that no group ever had are dead letters, category `expired`,
                               and so many that were settled are gone; 1: call again
  READ  0, 0, 0                a group reads the lane; nothing was written
IDEMPOTENT  yes
COST        O(limit); reads 4 MiB, give or take a page of ten
INVARIANTS  M1 (nothing accepted is lost), D1 (dead and gone in one step)
]]
local now = tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if redis.call('EXISTS', KEYS[1]) == 0 then return { 'OK', '0', '0', '0' } end
if #redis.call('XINFO', 'GROUPS', KEYS[1]) > 0 then return { 'READ', '0', '0', '0' } end
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local bound_ms, bound_seq = parts(redis.call('HGET', KEYS[3], ARGV[1]) or '0-0')
local age = tonumber(ARGV[2])
local cut = string.format('(%.0f-0', math.max(1, now - age))
local ids, expired, bytes, from, largest, is_end = {}, 0, 0, '-', nil, false
local limit = tonumber(ARGV[3])
while #ids < limit and bytes < 4194304 and not is_end do
  local fits = math.max(1, math.floor((4194304 - bytes) / (largest or 1048576)))
  local want = math.min(10, limit - #ids, fits)
  local page = redis.call('XRANGE', KEYS[1], from, cut, 'COUNT', want)
  is_end = #page < want
  for _, entry in ipairs(page) do
    local id, body = entry[1], entry[2][2]
    local ms, seq = parts(id)
    if ms > bound_ms or ms == bound_ms and seq > bound_seq then
      if age == 0 then is_end = true break end
      redis.call('XADD', KEYS[2], '*', 'm', body, 'group', '', 'lane', ARGV[1], 'id', id, 'count',
        0, 'category', 'expired', 'record', '', 'failures', '')
      expired = expired + 1
    end
    ids[#ids + 1], from = id, '(' .. id
    bytes, largest = bytes + #body, math.max(largest or 1, #body)
  end
end
if #ids > 0 then
  redis.call('XDEL', KEYS[1], unpack(ids))
  redis.call('HINCRBY', KEYS[4], ARGV[1], -bytes)
end
local more = is_end and '0' or '1'
return { 'OK', tostring(expired), tostring(#ids - expired), more }
