#!lua flags=allow-oom
--[[
consumer_forget: remove the Redis consumer of a name that is no member and holds nothing.

Why one script: XGROUP DELCONSUMER drops what is pending; only a check in the same step makes it
safe.

KEYS
  1 members  hash    consumer -> `<session> <attach> ...`
  2 lane     stream
ARGV
  1 group     name
  2 consumer  name
RETURNS  { status, detail }
  FORGOTTEN  ""   removed
  KEPT       ""   it is a member, or holds entries; nothing was written
IDEMPOTENT  yes
COST        O(1)
INVARIANTS  M4 (DELCONSUMER never with entries pending)
]]
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 1 then return { 'KEPT', '' } end
local rows = redis.call('XPENDING', KEYS[2], ARGV[1], '-', '+', 1, ARGV[2])
if #rows > 0 then return { 'KEPT', '' } end
redis.call('XGROUP', 'DELCONSUMER', KEYS[2], ARGV[1], ARGV[2])
return { 'FORGOTTEN', '' }
