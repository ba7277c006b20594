#!lua
--[[
publish: add one flush of messages to the lanes of a shard.

Why one script: a flush that is sent again after a lost reply must add nothing, so the check of
what was added before, the adding and the note of the replies are one step.

KEYS
  1 groups          hash    group -> `<state> <version>`; `~stream` while it is being deleted
  2 lanes           hash    lane ref -> id of its newest entry
  3 flush           hash    flush number -> stored reply, of this gateway incarnation
  4 producers       hash    producer id -> `<last sequence> <ms> <refused ranges>`
  5 scheduled       zset    scheduled member by due time
  6 bodies          hash    scheduled member -> `<lane ref> <body>`
  7 sizes           hash    lane ref -> bytes that it holds; `<lane ref> scheduled` -> messages
  8.. lane streams, counters of the groups, members of the groups, dedup buckets (6 a slot), and
      where a lane is of tracked messages the hash `tasks`: `~<message id>` -> its row
ARGV
  1 flush_no        u53     number of this flush, rising by 1
  2 max_backlog     u53     most unsettled messages of a group
  3 buffer          0|1     take messages for all groups while there is none
  4 dedup_bucket    u53     6 h bucket that the first key of each dedup slot belongs to; behind it
                            those of the 24 h before, and the one after it
  5 now_ms          u53     0, or the time instead of Redis' own (tests)
  6 lane_count      u53     lanes that follow
  7 group_count     u53     groups that follow
  8 producer_count  u53     producers that follow
  9 member_count    u53     members keys: 0, or one a group where a held lane is written
  10 run_count      u53     runs that follow
  11 max_bytes      u53     most bytes of unsettled messages of a group
  12.. lanes of (ref), groups of (name), producers of (id), runs of (lane_no, producer_no,
     first_sequence, n, extra: 0|1), behind a run its n items of (body), or with extra 1 of
     (body, dedup_no, dedup_field, dedup_value, ordering_key, not_before_ms, member).
     A negative lane_no has no items: it writes the item before it there too, without a reply.
     With lane_no 0 the caller has refused the item: its sequence is noted as refused.
RETURNS  { status, detail }
  OK       replies        a word per item: `+` added, `S` sequence seen before, `D<id>` duplicate
                          of message <id>, `C<id>` idempotency key used by other content, `B`
                          backlog full, `Y` full by bytes, `N` no such group, `W` no group at all,
                          `F` dedup slot full, `O` an earlier message of its ordering key was
                          refused, `X` the caller had refused it before, `T` a tracked message of
                          its id is known
  GROUPS   ""             the groups are not those of the caller; nothing was written
  MEMBERS  consumer       a held lane's consumer is a member by now; nothing was written
  CLOSED   ""             the stream is being deleted; nothing was written
  BUCKET   number         the dedup bucket is another; nothing was written
  LOST     lane ref       the lane's stream is gone, or its name: data loss; nothing was written
IDEMPOTENT  yes: the same flush number answers the stored reply
COST        O(items), one read a group; about 2 us a message in batches of 100
INVARIANTS  M1 (nothing accepted is lost), M2 (one entry per key), M3 (a lane has its groups), T1
]]
local flush_no, max_backlog = ARGV[1], tonumber(ARGV[2])
local stored = redis.call('HGET', KEYS[3], flush_no)
if stored then
  -- A write, so that a caller who waits for the disk waits for the flush that was stored.
  redis.call('EXPIRE', KEYS[3], 3600)
  return { 'OK', stored }
end

local now = tonumber(ARGV[5])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local lane_count, group_count = tonumber(ARGV[6]), tonumber(ARGV[7])
local producer_count, member_count = tonumber(ARGV[8]), tonumber(ARGV[9])
local group_at = 11 + lane_count
local producer_at = group_at + group_count
local counters_at = 7 + lane_count
local members_at = counters_at + group_count
local dedup_at = members_at + member_count
local bucket = string.format('%.0f', math.floor(now / 21600000))
if #KEYS > dedup_at and ARGV[4] ~= bucket then return { 'BUCKET', bucket } end

-- The groups that exist, and for how many messages and bytes each has room.
local max_bytes = tonumber(ARGV[11])
local known, rooms, live = {}, {}, 0
local rows = redis.call('HGETALL', KEYS[1])
for i = 1, #rows, 2 do
  if rows[i] == '~stream' then return { 'CLOSED', '' } end
  if string.sub(rows[i + 1], 1, 8) ~= 'deleting' then known[rows[i]], live = true, live + 1 end
end
-- A named group may be gone, its messages are refused one by one; an unnamed one must not be.
local named = 0
for g = 1, group_count do
  local name = ARGV[group_at + g]
  if known[name] then
    named = named + 1
    local key = KEYS[counters_at + g]
    local c = redis.call('HMGET', key, 'published', 'settled', 'scheduled', 'bytes')
    local count = tonumber(c[1] or 0) - tonumber(c[2] or 0) + tonumber(c[3] or 0)
    -- Of what is lost the size is a guess: an empty group has no bytes, whatever was guessed.
    local drained = count <= 0 and c[4] and c[4] ~= '0'
    rooms[name] = { counters = key, count = max_backlog - count, drained = drained,
      bytes = max_bytes - (drained and 0 or math.max(0, tonumber(c[4] or 0))) }
  end
end

-- A lane is for one group, for all, or held for a consumer that no group has.
local lanes = {}
for l = 1, lane_count do
  local ref = ARGV[11 + l]
  local group, name = string.match(ref, '^([^/]*)/(.+)$')
  local held = group == '' and string.match(name, '@(.+)$')
  local exists = redis.call('HEXISTS', KEYS[2], ref) == 1
  -- A lane that was retired has a stream still, and nothing in it.
  local is_lost = exists and redis.call('EXISTS', KEYS[7 + l]) == 0
  if is_lost or not exists and redis.call('XLEN', KEYS[7 + l]) > 0 then return { 'LOST', ref } end
  if group == '' and named ~= live or held and member_count ~= group_count then
    return { 'GROUPS', '' }
  end
  for m = 1, held and member_count or 0 do
    if redis.call('HEXISTS', KEYS[members_at + m], held) == 1 then return { 'MEMBERS', held } end
  end
  local lane = { ref = ref, group = group, held = held, exists = exists, rooms = {},
    tracked = string.find(name, '^p%dr'),
    all = group == '' and not held, published = 0, scheduled = 0, bytes = 0, later_bytes = 0 }
  for name, room in pairs(rooms) do
    if lane.all or group == name then lane.rooms[#lane.rooms + 1] = room end
  end
  if held or group == '' and live == 0 then
    -- Where no group counts them, the lane's own length bounds what it holds.
    local count = exists and redis.call('XLEN', KEYS[7 + l]) or 0
    local bytes = exists and tonumber(redis.call('HGET', KEYS[7], ref) or 0) or 0
    lane.rooms[1] = { count = max_backlog - count, bytes = max_bytes - bytes }
    lane.refuses = not held and ARGV[3] ~= '1' and 'W'
  elseif group ~= '' and not known[group] then
    lane.refuses = 'N'
  end
  lanes[l] = lane
end

local producers = {}
for p = 1, producer_count do
  local row = redis.call('HGET', KEYS[4], ARGV[producer_at + p]) or '0 0 '
  local last, ranges = string.match(row, '^(%d+) %d+ (.*)$')
  producers[p] = { last = tonumber(last), ranges = ranges }
end

-- True when this producer's message was stored before. A refused one was not: it may come again
-- when the client did not see the refusal.
local function seen(producer, sequence)
  if sequence > producer.last then return false end
  for from, to in string.gmatch(producer.ranges, '(%d+)-(%d+)') do
    if sequence >= tonumber(from) and sequence <= tonumber(to) then return false end
  end
  return true
end
-- Takes a sequence that is stored now out of the refused ones.
local function accept(producer, sequence)
  if sequence > producer.last then return end
  local kept = ''
  for from, to in string.gmatch(producer.ranges, '(%d+)-(%d+)') do
    from, to = tonumber(from), tonumber(to)
    if sequence < from or sequence > to then
      kept = kept .. string.format(' %.0f-%.0f', from, to)
    else
      if from < sequence then kept = kept .. string.format(' %.0f-%.0f', from, sequence - 1) end
      if sequence < to then kept = kept .. string.format(' %.0f-%.0f', sequence + 1, to) end
    end
  end
  producer.ranges, producer.refused = kept, nil
end

-- Whether all of a run of plain messages may go in, as most may.
local function all_fit(lane, producer, first_sequence, n, bytes)
  if producer and first_sequence <= producer.last then return false end
  for _, room in ipairs(lane.rooms) do
    if room.count < n or room.bytes < bytes then return false end
  end
  return not lane.refuses
end
local function take_room(lane, n, bytes)
  for _, room in ipairs(lane.rooms) do
    room.count, room.bytes = room.count - n, room.bytes - bytes
  end
end

-- Decide each item; nothing is written before all are decided.
local replies, adds, seen_keys, refused_orders, rows_made = {}, {}, {}, {}, {}
local function decide(add, lane, producer, sequence, order)
  local slot = add.dedup and add.dedup > 0 and dedup_at + (add.dedup - 1) * 6
  local found = slot and seen_keys[add.field]
  for b = 1, slot and 6 or 0 do found = found or redis.call('HGET', KEYS[slot + b], add.field) end
  if producer and seen(producer, sequence) then
    -- Seen is not always stored: it may have been another message's duplicate.
    local id = string.match(found or '', ' (.*)$')
    return id and id ~= string.match(add.value, ' (.*)$') and 'D' .. id or 'S'
  end
  if not lane then return 'X' end
  if slot then
    if found then
      local print, id = string.match(found, '^(%S+) (.*)$')
      return (print == string.match(add.value, '^%S+') and 'D' or 'C') .. id
    end
    if redis.call('HLEN', KEYS[slot + 1]) >= 4096 then return 'F' end
  end
  if lane.tracked then
    local _, from = struct.unpack('>Hc0', add.body, 23)
    add.row = struct.unpack('>Hc0', add.body, from)
    if rows_made[add.row] or redis.call('HEXISTS', KEYS[#KEYS], add.row) == 1 then return 'T' end
  end
  if refused_orders[order] then return 'O' end
  if lane.refuses then return lane.refuses end
  -- The message that passes the limit of bytes is taken still: none is too large for ever.
  for _, room in ipairs(lane.rooms) do
    if room.count < 1 then return 'B' elseif room.bytes < 1 then return 'Y' end
  end
  adds[#adds + 1] = add
  if add.row then rows_made[add.row] = true end
  if slot then seen_keys[add.field] = add.value; add.bucket = KEYS[slot + 1] end
  take_room(lane, 1, #add.body)
  if producer then accept(producer, sequence) end
  return '+'
end
local function note_refusal(producer, sequence, order)
  if order ~= '' then refused_orders[order] = true end
  if not producer or sequence <= producer.last then return end
  local text = string.format('%.0f', sequence)
  if producer.refused == sequence - 1 then
    producer.ranges = string.gsub(producer.ranges, '%d+$', text)
  else
    producer.ranges = producer.ranges .. ' ' .. text .. '-' .. text
    if #producer.ranges > 24576 then
      producer.ranges = string.gsub(producer.ranges, '^ *%S+', '')
    end
  end
  producer.refused = sequence
end

local at = producer_at + producer_count
local taken, first
for _ = 1, tonumber(ARGV[10]) do
  local lane_no, n, extra = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 4]), ARGV[at + 5] == '1'
  local lane, producer = lanes[math.abs(lane_no)], producers[tonumber(ARGV[at + 2])]
  local sequence = tonumber(ARGV[at + 3])
  local no = math.abs(lane_no)
  at = at + 5
  local bytes = 0
  for i = 1, extra and 0 or n do bytes = bytes + #ARGV[at + i] end
  if lane_no < 0 then
    if taken and (lane.group == '' or known[lane.group]) then
      adds[#adds + 1] = { lane = lane, no = no, body = first.body, due = first.due,
        member = first.member }
    end
  elseif not extra and all_fit(lane, producer, sequence, n, bytes) then
    adds[#adds + 1] = { lane = lane, no = no, at = at, n = n, bytes = bytes }
    for i = #replies + 1, #replies + n do replies[i] = '+' end
    take_room(lane, n, bytes)
    if producer then producer.last = sequence + n - 1 end
    taken, first = true, { body = ARGV[at + n] }
    at = at + n
  else
    for i = 0, n - 1 do
      local add, order = { lane = lane, no = no, body = ARGV[at + 1] }, ''
      if extra then
        add.dedup, add.field, add.value = tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4]
        order, add.due, add.member = ARGV[at + 5], tonumber(ARGV[at + 6]), ARGV[at + 7]
        at = at + 6
      end
      at = at + 1
      local reply = decide(add, lane, producer, sequence + i, order)
      taken, first = reply == '+', add
      if string.find('BYNWFOCXT', string.sub(reply, 1, 1), 1, true) then
        note_refusal(producer, sequence + i, order)
      end
      if producer and sequence + i > producer.last then producer.last = sequence + i end
      replies[#replies + 1] = reply
    end
  end
end

-- Write.
for _, add in ipairs(adds) do
  local lane, stream = add.lane, KEYS[7 + add.no]
  if not lane.exists then
    lane.exists = true
    redis.call('UNLINK', stream)
    for name in pairs(known) do
      if lane.all or lane.group == name then
        redis.call('XGROUP', 'CREATE', stream, name, '0', 'MKSTREAM')
      end
    end
    redis.call('HSET', KEYS[2], lane.ref, '0-0')
    redis.call('HDEL', KEYS[7], lane.ref, lane.ref .. ' retired')
    if redis.call('EXISTS', stream) == 0 then
      redis.call('XGROUP', 'CREATE', stream, '~', '0', 'MKSTREAM')
      redis.call('XGROUP', 'DESTROY', stream, '~')
    end
  end
  if add.bucket then
    redis.call('HSET', add.bucket, add.field, add.value)
    redis.call('EXPIRE', add.bucket, 115200, 'NX')
  end
  if add.due and add.due > now then
    add.entry = add.member .. '/' .. lane.ref
    redis.call('ZADD', KEYS[5], add.due, add.entry)
    redis.call('HSET', KEYS[6], add.entry, lane.ref .. ' ' .. add.body)
    lane.scheduled, lane.later_bytes = lane.scheduled + 1, lane.later_bytes + #add.body
  else
    for i = 1, add.n or 1 do
      if add.at then add.body = ARGV[add.at + i] end
      lane.newest = redis.call('XADD', stream, '*', 'm', add.body)
    end
    add.entry, lane.published = lane.newest, lane.published + (add.n or 1)
    lane.bytes = lane.bytes + (add.bytes or #add.body)
  end
  local row = add.row and 'open a ' .. lane.ref .. '|' .. add.entry
  if row then redis.call('HSET', KEYS[#KEYS], add.row, row) end
end
for _, room in pairs(rooms) do
  if room.drained then redis.call('HSET', room.counters, 'bytes', 0) end
end
for _, lane in ipairs(lanes) do
  if lane.newest then
    redis.call('HSET', KEYS[2], lane.ref, lane.newest)
    redis.call('HINCRBY', KEYS[7], lane.ref, lane.bytes)
  end
  if lane.scheduled > 0 then
    redis.call('HINCRBY', KEYS[7], lane.ref .. ' scheduled', lane.scheduled)
  end
  local bytes = lane.bytes + lane.later_bytes
  for _, room in ipairs(bytes > 0 and lane.rooms or {}) do
    local counters = room.counters
    if counters then
      if lane.newest then redis.call('HINCRBY', counters, 'published', lane.published) end
      if lane.scheduled > 0 then redis.call('HINCRBY', counters, 'scheduled', lane.scheduled) end
      redis.call('HINCRBY', counters, 'bytes', bytes)
    end
  end
end
for p, producer in ipairs(producers) do
  redis.call('HSET', KEYS[4], ARGV[producer_at + p],
    string.format('%.0f %.0f %s', producer.last, now, producer.ranges))
end
local reply = table.concat(replies, ' ')
redis.call('HSET', KEYS[3], flush_no, reply)
redis.call('HDEL', KEYS[3], string.format('%.0f', tonumber(flush_no) - 8))
redis.call('EXPIRE', KEYS[3], 3600)
return { 'OK', reply }
