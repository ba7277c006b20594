#!lua flags=allow-oom
--[[
definition_put: change or remove a stream or group definition by compare-and-set.

Why one script: two operators that change one group at once must not undo each other.

KEYS
  1 definitions  hash    name -> `<version> <definition>`
ARGV
  1 name        name
  2 version     u53     version that the caller read
  3 definition  json    the new one; empty removes it
RETURNS  { status, detail }
  PUT       version     stored under this version; 0 for a removal
  CONFLICT  row         what is there instead, or "" for nothing; nothing was written
IDEMPOTENT  no: the second call answers CONFLICT with what the first one wrote
COST        O(size)
INVARIANTS  C1 (a definition changes only from the version that was read)
]]
local row = redis.call('HGET', KEYS[1], ARGV[1])
if not row or string.match(row, '^%d+') ~= ARGV[2] then return { 'CONFLICT', row or '' } end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return { 'PUT', '0' }
end
-- Versions grow with the time, so that a Redis that lost steps never comes to one twice, and what a
-- shard has of a lost one is older than the next.
local time = redis.call('TIME')
local next_version = math.max(tonumber(ARGV[2]) + 1, time[1] * 1000000 + time[2])
next_version = string.format('%.0f', next_version)
redis.call('HSET', KEYS[1], ARGV[1], next_version .. ' ' .. ARGV[3])
return { 'PUT', next_version }
