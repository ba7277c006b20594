#!lua flags=allow-oom
--[[
held_expire: dead-letter direct messages that no consumer came for within their time to live.

Why one script: between the dead letter and the deletion, a crash would lose or double the message.

KEYS
  1 held  stream  the lane that holds them; no group reads it
  2 dead  stream  dead letters of the shard
ARGV
  1 ref     ref     of the lane
  2 limit   u53     most messages to look at
  3 now_ms  u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, expired }
  OK  expired  so many are dead letters now, in the category `no_capable_consumer`
IDEMPOTENT  yes
COST        O(limit)
INVARIANTS  M1 (nothing accepted is lost), D1 (dead and gone in one step)
]]
local now = tonumber(ARGV[3])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local expired = 0
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[2])) do
  local expires = struct.unpack('>I8', entry[2][2], 15)
  if expires > 0 and expires <= now then
    redis.call('XADD', KEYS[2], '*', 'm', entry[2][2], 'group', '', 'lane', ARGV[1], 'id', entry[1],
      'count', 0, 'category', 'no_capable_consumer', 'record', '', 'failures', '')
    redis.call('XDEL', KEYS[1], entry[1])
    expired = expired + 1
  end
end
return { 'OK', tostring(expired) }
