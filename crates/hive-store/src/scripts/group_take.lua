#!lua flags=allow-oom
--[[
group_take: lease never delivered messages of a lane to a placeholder, for a purge or an expiry.

Why one script: the read and the check of what is read are one step; what must stay is not read.

KEYS
  1 lane    stream
  2 groups  hash    group -> `<state> <version>`
ARGV
  1 group    name
  2 limit    u53     most entries to take
  3 below    id      only entries older than this id, or `+` for all
  4 expired  0|1     1: only entries whose time to live has passed, from the head on
  5 now_ms   u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, ids }
  OK  ids taken, none where the group is absent; they are `~taken`'s with delivery count 1, to be
      settled by the caller
IDEMPOTENT  no: what a lost reply took is found by the sweep, and given back
COST        O(limit)
INVARIANTS  M1 (nothing is dropped), M4
]]
local now = tonumber(ARGV[5])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return { 'OK', {} } end
local last
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if info[2] == ARGV[1] then last = info[8] end
end
if not last then return { 'OK', {} } end
local entries = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', ARGV[2])
local below = tonumber(string.match(ARGV[3], '^%d+')) or 9007199254740991
local count = 0
for _, entry in ipairs(entries) do
  local body = entry[2][2]
  local expires = string.byte(body, 1) == 2 and struct.unpack('>I8', body, 15) or 0
  if tonumber(string.match(entry[1], '^%d+')) >= below then break end
  if ARGV[4] == '1' and (expires == 0 or expires > now) then break end
  count = count + 1
end
if count == 0 then return { 'OK', {} } end
local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], '~taken', 'COUNT', count,
  'STREAMS', KEYS[1], '>')
local ids = {}
for _, entry in ipairs(read and read[1][2] or {}) do ids[#ids + 1] = entry[1] end
return { 'OK', ids }
