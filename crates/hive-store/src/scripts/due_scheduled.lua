#!lua flags=allow-oom
--[[
due_scheduled: move messages whose delay is over into their lanes.

Why one script: between adding and removing, a crash would lose or double the message.

KEYS
  1 scheduled  zset    member by due time
  2 bodies     hash    member -> `<lane ref> <body>`
  3 lanes      hash    lane ref -> id of its newest entry
  4.. lane streams, then counters of the groups
ARGV
  1 limit        u53     most messages to move
  2 now_ms       u53     0, or the time instead of Redis' own (tests)
  3 lane_count   u53     lanes that follow
  4 group_count  u53     groups that follow
  5.. lanes of (ref), groups of (name)
RETURNS  { status, moved, next_due_ms }
  OK     moved, due time of the next message or 0
  LANES  ""   a message's lane or group is not among the caller's; nothing was written
IDEMPOTENT  yes
COST        4 us a message
INVARIANTS  M1 (nothing accepted is lost), M2
]]
local now = tonumber(ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local lane_count, group_count = tonumber(ARGV[3]), tonumber(ARGV[4])
local lanes, counters = {}, {}
for l = 1, lane_count do lanes[ARGV[4 + l]] = KEYS[3 + l] end
for g = 1, group_count do counters[ARGV[4 + lane_count + g]] = KEYS[3 + lane_count + g] end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
local moves = {}
for _, member in ipairs(due) do
  local row = redis.call('HGET', KEYS[2], member)
  if row then
    local ref, body = string.match(row, '^(%S+) (.*)$')
    if not lanes[ref] then return { 'LANES', '' } end
    moves[#moves + 1] = { member = member, ref = ref, body = body,
      group = string.match(ref, '^([^/]*)/') }
  else
    moves[#moves + 1] = { member = member }
  end
end
for _, move in ipairs(moves) do
  if move.ref then
    local id = redis.call('XADD', lanes[move.ref], '*', 'm', move.body)
    redis.call('HSET', KEYS[3], move.ref, id)
    for group, key in pairs(counters) do
      if move.group == '' or move.group == group then
        redis.call('HINCRBY', key, 'scheduled', -1)
        redis.call('HINCRBY', key, 'published', 1)
      end
    end
  end
  redis.call('ZREM', KEYS[1], move.member)
  redis.call('HDEL', KEYS[2], move.member)
end
local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return { 'OK', tostring(#moves), head[2] or '0' }
