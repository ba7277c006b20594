#!lua flags=allow-oom
--[[
due_delayed: move entries whose backoff is over to the ready sets.

Why one script: an entry is in exactly one index, and its placeholder says in which.

KEYS
  1 delayed  zset    `<lane ref>|<id>` by due time
  2.. per lane its stream, its ready zset
ARGV
  1 group       name
  2 ageing_ms   u53     as in fetch
  3 limit       u53     most entries to move
  4 now_ms      u53     0, or the time instead of Redis' own (tests)
  5 lane_count  u53     lanes that follow
  6.. lanes of (ref)
RETURNS  { status, moved, next_due_ms }
  OK     moved, due time of the next entry or 0
  LANES  ""   an entry's lane is not among the caller's; nothing more was moved
IDEMPOTENT  yes
COST        4 us an entry
INVARIANTS  M4 (an entry has one owner and one index)
]]
local group, ageing, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local lanes = {}
for l = 1, tonumber(ARGV[5]) do
  lanes[ARGV[5 + l]] = { key = KEYS[l * 2], ready = KEYS[l * 2 + 1],
    priority = tonumber(string.match(ARGV[5 + l], '/p(%d)')) }
end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[3]))
for _, member in ipairs(due) do
  if not lanes[string.match(member, '^(.*)|')] then return { 'LANES', '' } end
end
local moved = 0
for _, member in ipairs(due) do
  local ref, id = string.match(member, '^(.*)|(.-)$')
  local lane = lanes[ref]
  redis.call('ZREM', KEYS[1], member)
  local row = redis.call('XPENDING', lane.key, group, id, id, 1)[1]
  if row and row[2] == '~delayed' then
    local ms = tonumber(string.match(id, '^%d+'))
    local score = ms - lane.priority * ageing
    if ageing == 0 then score = (9 - lane.priority) * 8796093022208 + ms end
    redis.call('XCLAIM', lane.key, group, '~ready', 0, id, 'JUSTID')
    redis.call('ZADD', lane.ready, score, member)
    moved = moved + 1
  end
end
local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return { 'OK', tostring(moved), head[2] or '0' }
