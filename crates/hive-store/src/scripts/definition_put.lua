#!lua
--[[
definition_put: store a stream or group definition by compare-and-set.

Why one script: two operators that change one group at once must not undo each other.

KEYS
  1 definitions  hash    name -> `<version> <definition>`
ARGV
  1 name        name
  2 version     u53     version that the caller read, 0 for "it must not exist"
  3 definition  json    the new one; empty deletes
  4 limit       u53     most names
RETURNS  { status, detail }
  PUT       version     stored under this version
  CONFLICT  row         what is there instead, or "" for nothing; nothing was written
  FULL      count       the limit is reached; nothing was written
IDEMPOTENT  no: the second call answers CONFLICT with what the first one wrote
COST        O(size)
INVARIANTS  C1 (a definition changes only from the version that was read)
]]
local row = redis.call('HGET', KEYS[1], ARGV[1])
local version = row and string.match(row, '^%d+') or '0'
if version ~= ARGV[2] then return { 'CONFLICT', row or '' } end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return { 'PUT', '0' }
end
local count = redis.call('HLEN', KEYS[1])
if not row and count >= tonumber(ARGV[4]) then return { 'FULL', tostring(count) } end
local next_version = string.format('%.0f', tonumber(version) + 1)
redis.call('HSET', KEYS[1], ARGV[1], next_version .. ' ' .. ARGV[3])
return { 'PUT', next_version }
