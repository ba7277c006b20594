#!lua
--[[
task_dispatch: add tasks of workflows to the task lanes of their group, each dispatch key once.

Why one script: the look for a dispatch key and the adding under it are one step, else a router that
sends again what it does not know to be sent would have a task done twice.

KEYS
  1 groups    hash    group -> `<state> <version>`; `~stream` while it is being deleted
  2 lanes     hash    lane ref -> id of its newest entry
  3 sizes     hash    lane ref -> bytes that it holds
  4 counters  hash    totals of the group
  5 tasks     hash    dispatch key -> `open <s|a> <lane ref>|<id>`, `acked`, or
                      `ended <outcome> <settled id>`
  6.. lane streams
ARGV
  1 group         name
  2 max_backlog   u53     most unsettled messages of the group
  3 max_bytes     u53     most bytes of unsettled messages of the group
  4 not_after_ms  u53     nothing is added once Redis' time is past it; 0: whenever
  5 now_ms        u53     0, or the time instead of Redis' own (tests)
  6 lane_count    u53     lanes that follow
  7 item_count    u53     items that follow
  8.. lanes of (ref), items of (lane_no, dispatch_key, signal: 0|1, body)
RETURNS  { status, detail }
  DONE  added  so many were added; the others have a row, whatever it says
  FULL  added  the group has no more room: so many were added, and some of those behind them were
               not; the same call again adds what is missing
  GONE  ""     the group is absent or being deleted; nothing was written
  LATE  ""     it is later than the caller meant; nothing was written
  LOST  ref    the lane's stream is gone, or its name: data loss; nothing was written
IDEMPOTENT  yes
COST        O(items), 5 us each
INVARIANTS  M1 (nothing accepted is lost), M3 (a lane has its group), T1 (a task is there once)
]]
local group, lane_count = ARGV[1], tonumber(ARGV[6])
local now = tonumber(ARGV[5])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local state = redis.call('HGET', KEYS[1], group)
if not state or string.sub(state, 1, 8) == 'deleting'
  or redis.call('HEXISTS', KEYS[1], '~stream') == 1 then
  return { 'GONE', '' }
end
if tonumber(ARGV[4]) > 0 and now > tonumber(ARGV[4]) then return { 'LATE', '' } end

-- The room of the group, as publish counts it.
local c = redis.call('HMGET', KEYS[4], 'published', 'settled', 'scheduled', 'bytes')
local count = tonumber(c[1] or 0) - tonumber(c[2] or 0) + tonumber(c[3] or 0)
-- Of what is lost the size is a guess: an empty group has no bytes, whatever was guessed.
local drained = count <= 0 and c[4] and c[4] ~= '0'
local room = tonumber(ARGV[2]) - count
local room_bytes = tonumber(ARGV[3]) - (drained and 0 or math.max(0, tonumber(c[4] or 0)))

local lanes = {}
for l = 1, lane_count do
  local ref, stream = ARGV[7 + l], KEYS[5 + l]
  local exists = redis.call('HEXISTS', KEYS[2], ref) == 1
  -- A lane that was retired has a stream still, and nothing in it.
  local is_lost = exists and redis.call('EXISTS', stream) == 0
  if is_lost or not exists and redis.call('XLEN', stream) > 0 then return { 'LOST', ref } end
  lanes[l] = { ref = ref, stream = stream, exists = exists, bytes = 0 }
end

local adds, seen, is_full, at = {}, {}, false, 7 + lane_count
for _ = 1, tonumber(ARGV[7]) do
  local key, body = ARGV[at + 2], ARGV[at + 4]
  if not seen[key] and redis.call('HEXISTS', KEYS[5], key) == 0 then
    -- The one that passes the limit of bytes is taken still: none is too large for ever.
    if room < 1 or room_bytes < 1 then is_full = true break end
    room, room_bytes, seen[key] = room - 1, room_bytes - #body, true
    adds[#adds + 1] = { lane = lanes[tonumber(ARGV[at + 1])], key = key, body = body,
      how = ARGV[at + 3] == '1' and 's' or 'a' }
  end
  at = at + 4
end

-- Write.
local bytes = 0
for _, add in ipairs(adds) do
  local lane = add.lane
  if not lane.exists then
    lane.exists = true
    redis.call('UNLINK', lane.stream)
    redis.call('XGROUP', 'CREATE', lane.stream, group, '0', 'MKSTREAM')
    redis.call('HDEL', KEYS[3], lane.ref, lane.ref .. ' retired')
  end
  lane.newest = redis.call('XADD', lane.stream, '*', 'm', add.body)
  lane.bytes, bytes = lane.bytes + #add.body, bytes + #add.body
  redis.call('HSET', KEYS[5], add.key,
    'open ' .. add.how .. ' ' .. lane.ref .. '|' .. lane.newest)
end
for _, lane in ipairs(lanes) do
  if lane.newest then
    redis.call('HSET', KEYS[2], lane.ref, lane.newest)
    redis.call('HINCRBY', KEYS[3], lane.ref, lane.bytes)
  end
end
if #adds > 0 and drained then redis.call('HSET', KEYS[4], 'bytes', 0) end
-- Also where nothing was added: a caller who waits for the disk waits for the call that added it.
redis.call('HINCRBY', KEYS[4], 'published', #adds)
if #adds > 0 then redis.call('HINCRBY', KEYS[4], 'bytes', bytes) end
if is_full then return { 'FULL', tostring(#adds) } end
return { 'DONE', tostring(#adds) }
