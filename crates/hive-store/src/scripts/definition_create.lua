#!lua
--[[
definition_create: store a stream or group definition that is not there yet.

Why one script: two operators that create one name at once must not both believe that they did.
Apart from definition_put, since a full Redis refuses new groups and not a change that empties it.

KEYS
  1 definitions  hash    name -> `<version> <definition>`
ARGV
  1 name        name
  2 definition  json
  3 limit       u53     most names
RETURNS  { status, detail }
  PUT       version     stored under this version: the time in us, so that none comes twice
  CONFLICT  row         what is there already; nothing was written
  FULL      count       the limit is reached; nothing was written
IDEMPOTENT  no: the second call answers CONFLICT with what the first one wrote
COST        O(size)
INVARIANTS  C1 (a definition changes only from the version that was read)
]]
local row = redis.call('HGET', KEYS[1], ARGV[1])
if row then return { 'CONFLICT', row } end
local count = redis.call('HLEN', KEYS[1])
if count >= tonumber(ARGV[3]) then return { 'FULL', tostring(count) } end
-- Counted from 1, a definition made anew would come to the versions of the one before, and whoever
-- still deletes or changes that one would take it for his.
local time = redis.call('TIME')
local version = string.format('%.0f', time[1] * 1000000 + time[2])
redis.call('HSET', KEYS[1], ARGV[1], version .. ' ' .. ARGV[2])
return { 'PUT', version }
