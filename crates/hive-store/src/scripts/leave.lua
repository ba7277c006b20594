#!lua flags=allow-oom
--[[
leave: end a membership; what the consumer still holds is found ownerless by the sweep.

Why one script: a slow old gateway must not remove the member that attached elsewhere meanwhile, nor
who thinks that a member is silent one that has just called.

KEYS
  1 members  hash    consumer -> `<session> <attach> <kind> <gateway> <concurrency> <ms> ...`
  2.. lane streams of the group
ARGV
  1 group     name
  2 consumer  name
  3 session   text    the session to end, or `*` for whichever it is
  4 attach    u53     the connection to end, or 0 for whichever it is
  5 last_ms   u53     its last join or fetch as the caller has seen it, or 0 for whichever it is
RETURNS  { status, detail }
  LEFT    held     the member is gone; in so many lanes it held entries
  FENCED  ""       another session or connection has the name, or it called meanwhile; nothing was
                   written
  ABSENT  ""       not a member
IDEMPOTENT  yes: the second call answers ABSENT
COST        O(lanes)
INVARIANTS  E1 (fencing), M4 (DELCONSUMER never with entries pending)
]]
local row = redis.call('HGET', KEYS[1], ARGV[2])
if not row then return { 'ABSENT', '' } end
local session, attach, ms = string.match(row, '^(%S+) (%d+) %S+ %S+ %d+ (%d+)')
if ARGV[3] ~= '*' and ARGV[3] ~= session or ARGV[4] ~= '0' and ARGV[4] ~= attach then
  return { 'FENCED', '' }
end
if ARGV[5] ~= '0' and ARGV[5] ~= ms then return { 'FENCED', '' } end
local held = 0
for l = 2, #KEYS do
  local rows = redis.call('XPENDING', KEYS[l], ARGV[1], '-', '+', 1, ARGV[2])
  if #rows == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[l], ARGV[1], ARGV[2])
  else
    held = held + 1
  end
end
redis.call('HDEL', KEYS[1], ARGV[2])
return { 'LEFT', tostring(held) }
