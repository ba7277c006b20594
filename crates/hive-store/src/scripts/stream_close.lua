#!lua flags=allow-oom
--[[
stream_close: decide the deletion of a stream that holds nothing, and remove it from its shard.

Why one script: a message or a group that comes between the look and the removal would vanish. The
mark stays behind: a gateway that has read the definition before it went publishes for a moment yet.

KEYS
  1 groups         hash    group -> `<state> <version>`; `~stream` -> `deleting <created_ms>`
  2 lanes          hash    lane ref -> id of its newest entry
  3 scheduled      zset    messages that are not due yet
  4 dead           stream  dead letters of the shard
  5 dead_taken     hash    `id` -> up to which of these the dead-letter worker has stored them
  6 settled_below  hash    lane ref -> id up to which all was settled when its last group went
  7 clock          hash    time of the shard
  8 gateways       hash    gateway incarnation -> last beat in ms
  9.. lane streams, then the other keys of the shard that go
ARGV
  1 created_ms  u53     when the definition was created: tells it from a later one of the name
  2 keep_ms     u53     how long the mark stays
  3 lane_count  u53     lanes that follow
  4.. lanes of (ref)
RETURNS  { status, groups, buffered, held, scheduled, dead }
  CLOSED  none    the shard holds the mark alone, and takes neither messages nor groups
  FILLED  counts  groups, messages that no group had (at least), messages held for consumers,
                  delayed ones, dead letters that are not stored yet (at least); nothing was written
  LANES   none    there are lanes that the caller does not know; nothing was written
IDEMPOTENT  yes: the second call answers CLOSED
COST        O(lanes)
INVARIANTS  M1 (nothing accepted is lost)
]]
local named, lane_count = {}, tonumber(ARGV[3])
for l = 1, lane_count do named[ARGV[3 + l]] = true end
for _, ref in ipairs(redis.call('HKEYS', KEYS[2])) do
  if not named[ref] then return { 'LANES' } end
end
local groups = redis.call('HLEN', KEYS[1]) - redis.call('HEXISTS', KEYS[1], '~stream')
local buffered, held = 0, 0
for l = 1, lane_count do
  local ref, stream = ARGV[3 + l], KEYS[8 + l]
  local below = redis.call('HGET', KEYS[6], ref)
  if string.find(ref, '@', 1, true) then
    held = held + redis.call('XLEN', stream)
  elseif not below then
    buffered = buffered + redis.call('XLEN', stream)
  else
    -- What its groups have settled is kept for replay, and may go.
    buffered = buffered + #redis.call('XRANGE', stream, '(' .. below, '+', 'COUNT', 1)
  end
end
local scheduled, taken = redis.call('ZCARD', KEYS[3]), redis.call('HGET', KEYS[5], 'id')
local dead = #redis.call('XRANGE', KEYS[4], taken and '(' .. taken or '-', '+', 'COUNT', 100)
if groups + buffered + held + scheduled + dead > 0 then
  return { 'FILLED', groups, buffered, held, scheduled, dead }
end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
for k = 9, #KEYS do redis.call('UNLINK', KEYS[k]) end
redis.call('HSET', KEYS[1], '~stream', 'deleting ' .. ARGV[1])
-- A coordinator may note the time once more: these two end by themselves.
for _, key in ipairs({ KEYS[1], KEYS[7], KEYS[8] }) do redis.call('PEXPIRE', key, ARGV[2]) end
return { 'CLOSED' }
