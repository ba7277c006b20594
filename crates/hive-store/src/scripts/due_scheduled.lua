#!lua flags=allow-oom
--[[
due_scheduled: move messages whose delay is over into their lanes.

Why one script: between adding and removing, a crash would lose or double the message.

KEYS
  1 scheduled  zset    member by due time
  2 bodies     hash    member -> `<lane ref> <body>`
  3 lanes      hash    lane ref -> id of its newest entry
  4 groups     hash    group -> `<state> <version>`
  5 dead       stream  dead letters of the shard
  6 sizes      hash    lane ref -> bytes that it holds; `<lane ref> scheduled` -> messages
  7 tasks      hash    `~<message id>` of a tracked message -> `open a <lane ref>|<member>`
  8 outcomes   stream  what became of tracked messages; its name is its channel too
  9.. lane streams, then counters of the groups
ARGV
  1 limit        u53     most messages to move
  2 now_ms       u53     0, or the time instead of Redis' own (tests)
  3 lane_count   u53     lanes that follow
  4 group_count  u53     groups that follow
  5.. lanes of (ref), groups of (name)
RETURNS  { status, moved, next_due_ms }
  OK     moved, due time of the next message or 0; a message whose lane went with its group is
         moved to the dead letters, one whose lane alone is gone makes it anew
  LANES  ref  this lane is to be made and not among the caller's; with "" there is a lane or a group
              on the shard that is not: read them again. Nothing was written
IDEMPOTENT  yes
COST        4 us a message; reads 4 MiB, give or take one message
INVARIANTS  M1 (nothing accepted is lost), M2 (one entry per message)
]]
local now = tonumber(ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local lane_count, group_count = tonumber(ARGV[3]), tonumber(ARGV[4])
local lanes, counters = {}, {}
for l = 1, lane_count do lanes[ARGV[4 + l]] = KEYS[8 + l] end
for g = 1, group_count do counters[ARGV[4 + lane_count + g]] = KEYS[8 + lane_count + g] end
-- A group that the caller does not know would get messages that nobody counts.
local live, states = {}, redis.call('HGETALL', KEYS[4])
for i = 1, #states, 2 do
  if string.sub(states[i + 1], 1, 8) ~= 'deleting' then
    if not counters[states[i]] then return { 'LANES', '' } end
    live[states[i]] = counters[states[i]]
  end
end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
local moves, read = {}, 0
for _, member in ipairs(due) do
  if read >= 4194304 then break end
  local row = redis.call('HGET', KEYS[2], member)
  if row then
    local ref, body = string.match(row, '^(%S+) (.*)$')
    local group = string.match(ref, '^([^/]*)/')
    local exists = redis.call('HEXISTS', KEYS[3], ref) == 1
    local gone = not exists and group ~= '' and not live[group]
    if not gone and not lanes[ref] then return { 'LANES', exists and '' or ref } end
    read = read + #body
    moves[#moves + 1] = { member = member, ref = ref, body = body, gone = gone, group = group,
      held = group == '' and string.find(ref, '@', 1, true) }
  else
    moves[#moves + 1] = { member = member }
  end
end
-- A lane that was retired has its stream still, most often, and nothing in it.
local function make_lane(move)
  local stream, has = lanes[move.ref], {}
  if redis.call('XLEN', stream) == 0 then
    redis.call('UNLINK', stream)
    redis.call('HDEL', KEYS[6], move.ref)
  else
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do has[info[2]] = true end
  end
  redis.call('HDEL', KEYS[6], move.ref .. ' retired')
  for group in pairs(live) do
    if not has[group] and not move.held and (move.group == '' or move.group == group) then
      redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
    end
  end
end
-- The key of a tracked message whose row names the member that moves.
local function row_of(move)
  if not string.find(move.ref, '/p%dr') or string.byte(move.body, 1) ~= 2 then return nil end
  local _, at = struct.unpack('>Hc0', move.body, 23)
  local key = struct.unpack('>Hc0', move.body, at)
  local row = redis.call('HGET', KEYS[7], key)
  return row == 'open a ' .. move.ref .. '|' .. move.member and key
end
for _, move in ipairs(moves) do
  local row = move.ref and row_of(move)
  local left = move.ref and redis.call('HINCRBY', KEYS[6], move.ref .. ' scheduled', -1)
  if left and left <= 0 then redis.call('HDEL', KEYS[6], move.ref .. ' scheduled') end
  if move.gone then
    redis.call('XADD', KEYS[5], '*', 'm', move.body, 'group', move.group, 'lane', move.ref, 'id',
      move.member, 'count', 0, 'category', 'cancelled', 'record', '', 'failures', '')
    if row then
      local record = redis.call('XADD', KEYS[8], '*', 'd', row, 'k', 'ended', 'o', 'dead_lettered',
        'b', 'cancelled')
      redis.call('HSET', KEYS[7], row, 'ended dead_lettered ' .. record)
      redis.call('PUBLISH', KEYS[8], row)
    end
  elseif move.ref then
    if redis.call('HEXISTS', KEYS[3], move.ref) == 0 then make_lane(move) end
    local id = redis.call('XADD', lanes[move.ref], '*', 'm', move.body)
    redis.call('HSET', KEYS[3], move.ref, id)
    if row then redis.call('HSET', KEYS[7], row, 'open a ' .. move.ref .. '|' .. id) end
    redis.call('HINCRBY', KEYS[6], move.ref, #move.body)
    for group, key in pairs(live) do
      if move.group == group or move.group == '' and not move.held then
        -- A group younger than the message did not count it as scheduled.
        if redis.call('HINCRBY', key, 'scheduled', -1) < 0 then
          redis.call('HSET', key, 'scheduled', 0)
          redis.call('HINCRBY', key, 'bytes', #move.body)
        end
        redis.call('HINCRBY', key, 'published', 1)
      end
    end
  end
  redis.call('ZREM', KEYS[1], move.member)
  redis.call('HDEL', KEYS[2], move.member)
end
local head = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return { 'OK', tostring(#moves), head[2] or '0' }
