#!lua flags=allow-oom
--[[
stream_open: take the mark of an earlier stream of the same name off a shard.

Why one script: a deletion that is decided meanwhile must not lose its mark.

KEYS
  1 groups    hash    group -> `<state> <version>`; `~stream` -> `deleting <created_ms>`
  2 clock     hash    time of the shard
  3 gateways  hash    gateway incarnation -> last beat in ms
ARGV
  1 created_ms  u53     when the definition was created that is to be served
RETURNS  { status, detail }
  OPEN    ""          the shard takes messages and groups
  CLOSED  created_ms  the stream that was created then, this one or a later one, is being deleted;
                      nothing was written
IDEMPOTENT  yes
COST        O(1)
INVARIANTS  E1 (an old definition changes nothing)
]]
local row = redis.call('HGET', KEYS[1], '~stream')
if not row then return { 'OPEN', '' } end
local closed = string.match(row, '%d+$')
if tonumber(closed) >= tonumber(ARGV[1]) then return { 'CLOSED', closed } end
redis.call('HDEL', KEYS[1], '~stream')
for _, key in ipairs({ KEYS[1], KEYS[2], KEYS[3] }) do redis.call('PERSIST', key) end
return { 'OPEN', '' }
