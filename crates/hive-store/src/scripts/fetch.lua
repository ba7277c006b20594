#!lua flags=allow-oom
--[[
fetch: lease messages of one group to consumers of one gateway.

Why one script: who may take what (state, fencing, share, ordering keys) is checked against the same
state that the reads change; two gateways that fetch at once never lease one entry twice.

KEYS
  1 groups     hash    group -> `<state> <version>`
  2 lanes      hash    lane ref -> id of its newest entry
  3 served     hash    lane ref -> `<newest id when found empty, else 0-0> <last served ms>`
  4 members    hash    consumer -> `<session> <attach> ...`
  5 counters   hash    totals of the group
  6 busy       hash    ordering key -> `<lane ref>|<id>` in flight
  7 parked     zset    `<ordering key>\0<padded id>\0<lane ref>|<id>`, score 0
  8 failures   hash    `<lane ref>|<id>` -> count and records
  9 credit     hash    gateway -> `<free credit> <ms>`
  10 tasks     hash    key of a task or tracked message -> its row, `open ...` while it is to come
  11 settled   stream  what became of tasks, for the router; its name is its channel too
  12 delayed   zset    `<lane ref>|<id>` by due time; what is held is there too
  13 held      zset    `<consumer>\0<lane ref>|<id>` by due time: tasks held for a consumer
  14 affinity  hash    workflow run -> consumer that last worked on it
  15 affinity_old  hash  runs that were in it before it grew too long
  16.. per lane its stream and its ready zset
ARGV
  1 group        name
  2 gateway      id      incarnation of the calling gateway
  3 own_free     u53     free credit of this gateway's consumers
  4 ageing_ms    u53     a lane not served for this long counts one priority more; 0 = strictly
  5 group_limit  u53     most leased entries of the group, 0 = no limit
  6 known_lanes  u53     fields of KEYS[2] that the caller knows
  7 now_ms       u53     0, or the time instead of Redis' own (tests)
  8 lane_count   u53     lanes that follow
  9 consumer_count u53   consumers that follow
  10 slot_count  u53     slots that follow
  11 hold_ms     u53     a task is held so long for who last worked on its run; 0 = not at all
  12.. lanes of (ref, classes: a 0|1 for each class), consumers of (id, session, attach, class,
     room: the sum of its slots), slots of (consumer_no, count)
RETURNS  { status, detail, ... }
  OK      chunks, fenced, detached, { waiting, sources, parked, due_in }
          chunk of fresh entries    { consumer_no, lane_no, { { id, { 'm', body } }, ... } }
          chunk of a redelivery     { consumer_no, lane_no, { { id, ... } }, count, failures }
          fenced: consumers whose names others have; detached: those that are to join again
          sources: numbers of the lanes left with work, 0 for a ready set or held tasks
          parked: entries read and not delivered: parked, held, or decided and so settled here
          due_in: ms until due_delayed makes a held task anybody's; 0 where none is held
  PAUSED  ""      the group is paused or not made yet
  GONE    ""      the group is absent or being deleted
  LANES   count   there are lanes that the caller does not know; nothing was written
IDEMPOTENT  no: each call leases more; the caller gives back what a lost reply leased
COST        O(delivered + lanes + slots + held), 4 us a message
INVARIANTS  M4 (an entry has one owner), M5 (one entry of an ordering key in flight), E1 (fencing),
            T2 (no delivery of a task behind its outcome)
]]
local group, ageing, slots = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[10])
local state = redis.call('HGET', KEYS[1], group)
if not state or string.sub(state, 1, 8) == 'deleting' then return { 'GONE', '' } end
if string.sub(state, 1, 6) ~= 'active' then return { 'PAUSED', '' } end
local there = redis.call('HLEN', KEYS[2])
if there ~= tonumber(ARGV[6]) then return { 'LANES', tostring(there) } end

local now, hold_ms = tonumber(ARGV[7]), tonumber(ARGV[11])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local lane_count, consumer_count = tonumber(ARGV[8]), tonumber(ARGV[9])
local consumer_at, fenced, detached, consumers, by_name = 11 + lane_count * 2, {}, {}, {}, {}
for c = 1, consumer_count do
  local at = consumer_at + (c - 1) * 5
  local row = redis.call('HGET', KEYS[4], ARGV[at + 1])
  if row and string.find(row, ARGV[at + 2] .. ' ' .. ARGV[at + 3] .. ' ', 1, true) == 1 then
    consumers[c] = { no = c, id = ARGV[at + 1], class = tonumber(ARGV[at + 4]),
      room = tonumber(ARGV[at + 5]) }
    by_name[ARGV[at + 1]] = consumers[c]
  else
    local is_other = row and string.find(row, ARGV[at + 2] .. ' ', 1, true) ~= 1
    table.insert(is_other and fenced or detached, c)
  end
end

-- Sources: a lane with entries never delivered, a ready set with entries to deliver again.
local sources, lane_of, ready_seen, waiting, leased = {}, {}, {}, 0, 0
local function rank_ready(source)
  local head = redis.call('ZRANGE', source.key, 0, 0, 'WITHSCORES')
  if not head[1] then return false end
  source.member, source.ready = head[1], true
  local score = tonumber(head[2])
  source.rank = ageing > 0 and math.min(9, math.floor((now - score) / ageing))
    or 9 - math.floor(score / 8796093022208)
  return true
end
for l = 1, lane_count do
  local ref, classes = ARGV[10 + l * 2], ARGV[11 + l * 2]
  local stream, ready = KEYS[14 + l * 2], KEYS[15 + l * 2]
  local priority, kind = string.match(ref, '/p(%d)([mtr]?)')
  local lane = { no = l, ref = ref, key = stream, classes = classes, marked = kind == 'm',
    of_tasks = kind == 't' or kind == 'r', tracked = kind == 'r', base = tonumber(priority),
    ready_key = ready }
  lane_of[ref] = lane
  local newest, served = redis.call('HGET', KEYS[2], ref), redis.call('HGET', KEYS[3], ref)
  local empty_at, at = '', now
  if served then empty_at, at = string.match(served, '^(%S+) (%d+)$') end
  if newest and newest ~= empty_at and newest ~= '0-0' then
    lane.newest, lane.rank, lane.since = newest, lane.base, tonumber(at)
    local aged = ageing > 0 and math.floor(math.max(0, now - lane.since) / ageing) or 0
    lane.rank = math.min(9, lane.base + aged)
    if not served then redis.call('HSET', KEYS[3], ref, '0-0 ' .. now) end
    sources[#sources + 1] = lane
  end
  if not ready_seen[ready] then
    ready_seen[ready] = true
    local source = { no = 0, key = ready, classes = classes, owner = '~ready' }
    if rank_ready(source) then
      sources[#sources + 1] = source
      waiting = waiting + redis.call('ZCARD', ready)
    end
  end
end

-- Gateways share what waits by their free credit, so that nobody wins by hearing the bell first.
local all_free, limit = 0, 1e9
redis.call('HSET', KEYS[9], ARGV[2], ARGV[3] .. ' ' .. string.format('%.0f', now))
if redis.call('HLEN', KEYS[9]) > 1 or tonumber(ARGV[5]) > 0 then
  for _, source in ipairs(sources) do
    if not source.ready then
      for _, info in ipairs(redis.call('XINFO', 'GROUPS', source.key)) do
        -- Unknown after some deletes: then it is no more than what is there and not pending.
        if info[2] == group then
          waiting = waiting + (info[12] or math.max(0, redis.call('XLEN', source.key) - info[6]))
        end
      end
    end
  end
  local rows = redis.call('HGETALL', KEYS[9])
  for i = 1, #rows, 2 do
    local free, ms = string.match(rows[i + 1], '^(%d+) (%d+)$')
    if now - tonumber(ms) < 5000 then
      all_free = all_free + tonumber(free)
    else
      redis.call('HDEL', KEYS[9], rows[i])
    end
  end
  if all_free > 0 and waiting < all_free then
    limit = math.max(1, math.ceil(waiting * tonumber(ARGV[3]) / all_free))
  end
end
if tonumber(ARGV[5]) > 0 then
  for _, lane in pairs(lane_of) do
    for _, row in ipairs(redis.call('XPENDING', lane.key, group)[4] or {}) do
      if string.sub(row[1], 1, 1) ~= '~' then leased = leased + tonumber(row[2]) end
    end
  end
  limit = math.min(limit, math.max(0, tonumber(ARGV[5]) - leased))
end

-- Parks an entry whose ordering key is busy; true when it may be delivered. The key stays with
-- its entry through nack, release and expiry, until a settle ends the entry.
local function admit(lane, entry)
  local id, body = entry[1], entry[2][2]
  -- What another build wrote has no key that this one could read; it is refused further on.
  local order = string.byte(body, 1) == 2 and struct.unpack('>Hc0', body, 23) or ''
  if order == '' then return true end
  local mine = lane.ref .. '|' .. id
  local holder = redis.call('HGET', KEYS[6], order)
  if not holder then redis.call('HSET', KEYS[6], order, mine) end
  if not holder or holder == mine then return true end
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local age = string.format('%015s-%010s', ms, seq)
  redis.call('ZADD', KEYS[7], 0, order .. '\0' .. string.gsub(age, ' ', '0') .. '\0' .. mine)
  redis.call('XCLAIM', lane.key, group, '~ordered', 0, id, 'JUSTID')
  return false
end

-- True when a task may be delivered, and then the router knows who has it; one that was decided, or
-- whose key names another entry by now, is settled here.
local started, dropped, dropped_bytes = false, 0, 0
local function key_of(body)
  if string.byte(body, 1) ~= 2 then return nil end
  return (struct.unpack('>Hc0', body, select(2, struct.unpack('>Hc0', body, 23))))
end
local function start(lane, entry, consumer, count)
  local id, body, key = entry[1], entry[2][2], key_of(entry[2][2])
  -- What another build wrote is refused further on, as in every lane.
  if not key then return true end
  local row = redis.call('HGET', KEYS[10], key)
  if row and string.match(row, '^open %a (.*)$') == lane.ref .. '|' .. id then
    if lane.tracked then return true end
    redis.call('XADD', KEYS[11], '*', 'd', key, 'k', 'started', 'c', consumer.id, 'n', count)
    if hold_ms > 0 then redis.call('HSET', KEYS[14], string.match(key, '^[^/]*'), consumer.id) end
    started = true
    return true
  end
  redis.call('XACK', lane.key, group, id)
  redis.call('HDEL', KEYS[8], lane.ref .. '|' .. id)
  dropped, dropped_bytes = dropped + 1, dropped_bytes + #body
  return false
end

-- One answer holds 4 MiB, give or take what is read at once before its size is known.
local chunks, redelivered, reads, taken, room = {}, 0, 0, 0, 4194304
local function give(lane, consumer, entries, ...)
  chunks[#chunks + 1] = { consumer.no, lane.no, entries, ... }
  consumer.room, taken = consumer.room - #entries, taken + #entries
end
local function take_ready(source, consumer)
  local ref, id = string.match(source.member, '^(.*)|(.-)$')
  local lane = lane_of[ref]
  -- A lane that came while another went: the caller will know it when it reads the lanes again.
  if not lane then source.unknown = true return end
  reads = reads + 1
  redis.call('ZREM', source.key, source.member)
  local row = redis.call('XPENDING', lane.key, group, id, id, 1)[1]
  if row and row[2] == source.owner then
    local entry = redis.call('XCLAIM', lane.key, group, consumer.id, 0, id)
    if entry[1] and (not lane.of_tasks or start(lane, entry[1], consumer, row[4] + 1)) then
      local record = redis.call('HGET', KEYS[8], source.member)
      local failures = record and struct.unpack('>I4', record) or 0
      give(lane, consumer, entry, row[4] + 1, failures)
      -- What was only held before comes for the first time.
      if row[4] > 0 then redelivered = redelivered + 1 end
      room = room - #entry[1][2][2]
    end
  end
end
-- A fresh task is the consumer's that last worked on its run, where that is a member that serves
-- the lane: given to it where it has room here, else held. That is a backoff with a name to it: at
-- its end the task is anybody's, whatever became of the name. True where it is its reader's.
local held, due_in = 0, 0
local function offer(lane, entry, reader)
  local key = hold_ms > 0 and key_of(entry[2][2])
  local run = key and string.match(key, '^[^/]*')
  local name = run and (redis.call('HGET', KEYS[14], run) or redis.call('HGET', KEYS[15], run))
  local row = name and name ~= reader.id and redis.call('HGET', KEYS[4], name)
  local able = row and ',' .. string.match(row, '^%S+ %S+ %S+ %S+ %S+ %S+ (%S+)') .. ','
  for wanted in string.gmatch(string.match(lane.ref, '%+(.*)$') or '', '[^,]+') do
    able = able and string.find(able, ',' .. wanted .. ',', 1, true) and able
  end
  local other = by_name[name]
  local has_room = other and other.room > 0
  if not able or not has_room and held >= 256 then return start(lane, entry, reader, 1) end
  if not has_room then
    local member, due = lane.ref .. '|' .. entry[1], now + hold_ms
    -- Nobody had it, so the reading was no delivery.
    redis.call('XCLAIM', lane.key, group, '~delayed', 0, entry[1], 'RETRYCOUNT', 0, 'JUSTID')
    redis.call('ZADD', KEYS[12], due, member)
    redis.call('ZADD', KEYS[13], due, name .. '\0' .. member)
    held, due_in = held + 1, due_in > 0 and due_in or hold_ms
  elseif start(lane, entry, other, 1) then
    redis.call('XCLAIM', lane.key, group, other.id, 0, entry[1], 'JUSTID')
    give(lane, other, { entry })
  end
  return false
end
local function take_lane(lane, consumer, want)
  -- Sizes are known only once read: 16 at a time bound what an answer may hold too much.
  want = math.min(want, 16, math.max(1, math.floor(room / (lane.largest or 1048576))))
  if lane.rank > lane.base then want = 1 end
  local reply = redis.call('XREADGROUP', 'GROUP', group, consumer.id, 'COUNT', want,
    'STREAMS', lane.key, '>')
  local entries = reply and reply[1][2] or {}
  reads, lane.largest = reads + #entries, lane.largest or 1
  for _, entry in ipairs(entries) do
    room, lane.largest = room - #entry[2][2], math.max(lane.largest, #entry[2][2])
  end
  lane.since, lane.rank, lane.spent = now, lane.base, #entries < want
  redis.call('HSET', KEYS[3], lane.ref, (lane.spent and lane.newest or '0-0') .. ' ' .. now)
  if lane.marked or lane.of_tasks then
    local kept = {}
    for _, entry in ipairs(entries) do
      if (lane.marked and admit or offer)(lane, entry, consumer) then kept[#kept + 1] = entry end
    end
    entries = kept
  end
  if #entries > 0 then give(lane, consumer, entries) end
end

-- Held tasks first: their turn had come before. A row whose time is over, or was written before the
-- clock went back, says nothing any more; whose consumer came back unable, its task is due at once.
local rows = hold_ms > 0 and redis.call('ZRANGE', KEYS[13], 0, -1, 'WITHSCORES') or {}
for i = 1, #rows, 2 do
  local name, member = string.match(rows[i], '^(.-)%z(.*)$')
  local left, consumer = tonumber(rows[i + 1]) - now, by_name[name]
  local lane = consumer and lane_of[string.match(member, '^(.*)|')]
  local unable = lane and string.sub(lane.classes, consumer.class, consumer.class) ~= '1'
  if left <= 0 or left > hold_ms or unable then
    redis.call('ZREM', KEYS[13], rows[i])
    if unable then redis.call('ZADD', KEYS[12], 'XX', now, member) end
    due_in = 1
  elseif consumer and consumer.room > 0 and taken < limit and room > 0 and reads < 1000 then
    redis.call('ZREM', KEYS[13], rows[i])
    take_ready({ key = KEYS[12], member = member, owner = '~delayed' }, consumer)
  else
    held, due_in = held + 1, due_in > 0 and due_in or left
  end
end

-- Slots in their order; within a slot the best source: by rank, ready first, then longest unserved.
local steps = 0
for s = 1, slots do
  local at = consumer_at + consumer_count * 5 + (s - 1) * 2
  local consumer = consumers[tonumber(ARGV[at + 1])]
  -- The room that is left for its later slots.
  local rest = consumer and math.max(0, consumer.room - tonumber(ARGV[at + 2]))
  while consumer and consumer.room > rest and taken < limit and room > 0 and reads < 1000
    and steps < 2000 do
    steps = steps + 1
    local best
    for _, source in ipairs(sources) do
      if not source.spent and string.sub(source.classes, consumer.class, consumer.class) == '1'
        and (not best or source.rank > best.rank or source.rank == best.rank
          and not best.ready and (source.ready or source.since < best.since)) then
        best = source
      end
    end
    if not best then break end
    if best.ready then
      take_ready(best, consumer)
      best.spent = best.unknown or not rank_ready(best)
    else
      take_lane(best, consumer, math.min(consumer.room - rest, limit - taken, 1000 - reads))
    end
  end
end
if started then redis.call('PUBLISH', KEYS[11], '') end
if dropped > 0 then
  redis.call('HINCRBY', KEYS[5], 'settled', dropped)
  redis.call('HINCRBY', KEYS[5], 'bytes', -dropped_bytes)
end
if redelivered > 0 then redis.call('HINCRBY', KEYS[5], 'redelivered', redelivered) end
-- The latest 4,096 runs are known, until no task is delivered for an hour.
if started and hold_ms > 0 then
  redis.call('EXPIRE', KEYS[14], 3600)
  if redis.call('HLEN', KEYS[14]) > 4096 then redis.call('RENAME', KEYS[14], KEYS[15]) end
end
local remaining = { held > 0 and 0 or nil }
for _, source in ipairs(sources) do
  if not source.spent then remaining[#remaining + 1] = source.no end
end
return { 'OK', chunks, fenced, detached, { waiting, remaining, reads - taken, due_in } }
