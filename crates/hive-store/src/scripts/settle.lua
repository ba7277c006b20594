#!lua flags=allow-oom
--[[
settle: end or give back deliveries, wherever the entry must be read or moved.

Why one script: an entry that is acked here and parked there is lost or doubled when the caller
dies in between; ownership, indexes, failure history, counters and ordering keys change together.

KEYS
  1 members   hash    consumer -> `<session> <attach> ...`
  2 counters  hash    totals and one-minute buckets of the group
  3 delayed   zset    `<lane ref>|<id>` by due time
  4 busy      hash    ordering key -> `<lane ref>|<id>` in flight, or `!<lane ref>|<id>` of the
                      dead entry that blocks it
  5 parked    zset    `<ordering key>\0<padded id>\0<lane ref>|<id>`, score 0
  6 failures  hash    `<lane ref>|<id>` -> count and records
  7 dead      stream  dead letters of the shard
  8 clock     hash    nothing ends by its deadline in a grace, nor where the clock jumped unnoted
  9 replies   hash    slot -> `<call> <verdicts>`, of the calling process
  10 sizes    hash    lane ref -> bytes that it holds; `~ outcomes` -> bytes of what is kept there
  11 tasks    hash    dispatch key, or `~<message id>` of a tracked message -> `open <s|a> <lane
                      ref>|<id>`, `acked`, or `ended <outcome> <id of its record>`
  12 settled  stream  what became of tasks, for the router; its name is its channel too
  13.. per lane its stream, its ready zset; where a lane is of tracked messages then the stream
      `outcomes`, what became of them; its name is its channel too
ARGV
  1 group         name
  2 ageing_ms     u53     as in fetch
  3 max_attempts  u53     of the group; the entry's own wins
  4 initial_ms    u53     first backoff of the group; the entry's own wins
  5 max_ms        u53     longest backoff of the group; the entry's own wins
  6 now_ms        u53     0, or the time instead of Redis' own (tests)
  7 call          u53     number of this call: sent again it answers what it answered
  8 lane_count    u53     lanes that follow
  9 item_count    u53     items that follow
  10 keep         0|1     0: what is settled is deleted where no other group reads the lane
  11 block        0|1     1: a failed entry that dies blocks its ordering key
  12.. lanes of (ref), items of (lane_no, id, count, consumer, session, attach, action, number,
      category, record): session `*` and attach 0 are not checked; action
      a  ack           number: work in ms; record: of a task or tracked message its result
      s  suspended, a task alone: record: what it asks for
      n  nack          number: delay in ms, or -jitter in millionths of the backoff minus 1
      r  release       number: not before, in ms from now
      j  reject
      x  time to live passed
      c  cancelled: the group is deleted or purged
      l  lost: a failed attempt, at once ready again; number: least idle time in ms
      u  given back uncounted; number: least idle time in ms
RETURNS  { status, detail }
  OK  verdicts  a letter per item: `o` done, `d` done and dead-lettered, `g` not pending here, `s`
                the lease is another's, `f` session or connection is an old one, `i` not idle for
                long enough, or within the grace after a restart, `k` the next message of its
                ordering key is in a lane that the caller does not know, `b` the call has read 4 MiB
                by then; nothing changed
IDEMPOTENT  yes: the same call number answers the stored verdicts, another one `g` or `s`
COST        about 10 us an item, and its body; of an ordering key also the body of the next one
INVARIANTS  M1, M4, M5, M6, M7, D1 (dead and acked in one step), D2 (dead once), T2
]]
local group, ageing, slot = ARGV[1], tonumber(ARGV[2]), tostring(tonumber(ARGV[7]) % 64)
local number, stored = string.match(redis.call('HGET', KEYS[9], slot) or '', '^(%d+) (%a+)$')
if number == ARGV[7] then
  -- A write, so that a caller who waits for the disk waits for the call that was stored.
  redis.call('EXPIRE', KEYS[9], 3600)
  return { 'OK', stored }
end
local now = tonumber(ARGV[6])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local minute = math.floor(now / 60000)
local sixth = tostring(minute % 6)
local is_counted = redis.call('HGET', KEYS[2], 'minute' .. sixth) == tostring(minute)
local noted = redis.call('HMGET', KEYS[8], 'grace_until', 'last_ms')
local in_grace = now < tonumber(noted[1] or 0) or math.abs(now - tonumber(noted[2] or now)) > 5000
local lane_count, at, lane_of = tonumber(ARGV[8]), 11 + tonumber(ARGV[8]), {}
for l = 1, lane_count do
  local ref = ARGV[11 + l]
  lane_of[ref] = { ref = ref, key = KEYS[11 + l * 2], ready = KEYS[12 + l * 2],
    priority = tonumber(string.match(ref, '/p(%d)')), marked = string.match(ref, '/p%dm'),
    of_tasks = string.match(ref, '/p%d[tr]'), tracked = string.match(ref, '/p%dr') }
end
local totals = { settled = 0, acked = 0, failed = 0, released = 0, dead = 0, expired = 0, work = 0,
  bytes = 0 }

-- Sizes are not always known before an entry is read: what a call reads is bounded here.
local room = 4194304
local function body_of(lane, id)
  local entry = redis.call('XRANGE', lane.key, id, id)[1]
  room = room - (entry and #entry[2][2] or 0)
  return entry and entry[2][2]
end
local function to_ready(lane, id)
  local ms = tonumber(string.match(id, '^%d+'))
  local score = ms - lane.priority * ageing
  if ageing == 0 then score = (9 - lane.priority) * 8796093022208 + ms end
  redis.call('XCLAIM', lane.key, group, '~ready', 0, id, 'JUSTID')
  redis.call('ZADD', lane.ready, score, lane.ref .. '|' .. id)
end
-- What another build wrote has no header that this one could read.
local function order_of(body)
  return body and string.byte(body, 1) == 2 and struct.unpack('>Hc0', body, 23) or ''
end
-- What the end of an entry lets go: nil where it holds no ordering key, else the key and its oldest
-- parked entry that is there; false where a parked entry's lane is not among the caller's. One that
-- is gone would hold the key for ever: it stays parked until the auditor ends it.
local function held_key(lane, id, body)
  if not lane.marked or not body then return nil end
  local order = order_of(body)
  if order == '' or redis.call('HGET', KEYS[4], order) ~= lane.ref .. '|' .. id then return nil end
  for skip = 0, 99 do
    local member = redis.call('ZRANGEBYLEX', KEYS[5], '[' .. order .. '\0', '(' .. order .. '\1',
      'LIMIT', skip, 1)[1]
    if not member then break end
    local mine = string.match(member, '^.*%z(.-)$')
    local ref, after_id = string.match(mine, '^(.*)|(.-)$')
    local after = lane_of[ref]
    if not after then return false end
    if body_of(after, after_id) then
      return { order = order, member = member, mine = mine, lane = after, id = after_id }
    end
  end
  return { order = order }
end
local function next_of_key(held)
  if not held then return end
  if not held.member then redis.call('HDEL', KEYS[4], held.order) return end
  redis.call('ZREM', KEYS[5], held.member)
  redis.call('HSET', KEYS[4], held.order, held.mine)
  to_ready(held.lane, held.id)
end
-- The end of an entry for this group; for good, where nothing is kept and no other group reads it.
local function finish(lane, id, body)
  redis.call('XACK', lane.key, group, id)
  redis.call('HDEL', KEYS[6], lane.ref .. '|' .. id)
  totals.settled, totals.bytes = totals.settled + 1, totals.bytes + #(body or '')
  if ARGV[10] == '1' or not body then return end
  lane.groups = lane.groups or #redis.call('XINFO', 'GROUPS', lane.key)
  if lane.groups == 1 then
    redis.call('XDEL', lane.key, id)
    redis.call('HINCRBY', KEYS[10], lane.ref, -#body)
  end
end
-- The open row of a task's or tracked entry: nil of others, false where it was decided before.
local function task_of(lane, id, body)
  if not lane.of_tasks or not body or string.byte(body, 1) ~= 2 then return nil end
  local _, from = struct.unpack('>Hc0', body, 23)
  local key = struct.unpack('>Hc0', body, from)
  local how, mine = string.match(redis.call('HGET', KEYS[11], key) or '', '^open (%a) (.*)$')
  return mine == lane.ref .. '|' .. id and { key = key, signalled = how == 's',
    to = lane.tracked and KEYS[13 + lane_count * 2] }
end
local function end_task(task, outcome, bytes, consumer, failures, more)
  if not task then return end
  local row, is_over = 'acked', outcome ~= 'succeeded' or not task.signalled or bytes ~= ''
  local attempts = (failures and struct.unpack('>I4', failures) or 0) + (more or 0)
  if is_over then
    row = 'ended ' .. outcome .. ' ' .. redis.call('XADD', task.to or KEYS[12], '*', 'd', task.key,
      'k', 'ended', 'o', outcome, 'b', bytes, unpack(task.to and { 'c', consumer, 'n', attempts }
      or {}))
  end
  redis.call('HSET', KEYS[11], task.key, row)
  if task.to then
    redis.call('HINCRBY', KEYS[10], '~ outcomes', 128 + #task.key + #bytes)
    redis.call('PUBLISH', task.to, task.key)
  end
  totals.told = totals.told or is_over and not task.to
end
local function to_dead(lane, id, count, body, category, record, failures, may_block, more)
  local task = task_of(lane, id, body)
  -- What was decided before dies no second death.
  if task == false then finish(lane, id, body) return 'o' end
  local held = held_key(lane, id, body)
  if held == false then return 'k' end
  redis.call('XADD', KEYS[7], '*', 'm', body or '', 'group', group, 'lane', lane.ref, 'id', id,
    'count', count, 'category', category, 'record', record, 'failures', failures or '')
  finish(lane, id, body)
  totals.dead = totals.dead + 1
  local reason = string.match(record, '^[^\31]*\31%d+\31%d+\31[^\31]*\31([^\31]+)')
  local words = reason and category ~= '' and category .. ': ' .. reason or reason or category
  end_task(task, 'dead_lettered', words == '' and 'no reason was given' or words,
    string.match(record, '^[^\31]*'), failures, more)
  if held and may_block and ARGV[11] == '1' then
    redis.call('HSET', KEYS[4], held.order, '!' .. lane.ref .. '|' .. id)
    redis.call('HINCRBY', KEYS[2], 'blocked', 1)
  else
    next_of_key(held)
  end
  return 'd'
end

local function attempts_of(body)
  local own = body and string.byte(body, 1) == 2 and struct.unpack('>H', body, 5) or 0
  return own > 0 and own or tonumber(ARGV[3])
end
local function parked_member(lane, id, order)
  local age = string.format('%015s-%010s', string.match(id, '^(%d+)-(%d+)$'))
  return order .. '\0' .. string.gsub(age, ' ', '0') .. '\0' .. lane.ref .. '|' .. id
end
-- A purge takes entries past the check of their ordering key: one that comes back is checked here.
-- True when it may be ready, else it is parked.
local function admit(lane, id)
  local body = lane.marked and body_of(lane, id)
  local order = order_of(body)
  local holder = order ~= '' and redis.call('HGET', KEYS[4], order)
  if holder and holder ~= lane.ref .. '|' .. id then
    redis.call('ZADD', KEYS[5], 0, parked_member(lane, id, order))
    redis.call('XCLAIM', lane.key, group, '~ordered', 0, id, 'JUSTID')
    return false
  end
  if order ~= '' then redis.call('HSET', KEYS[4], order, lane.ref .. '|' .. id) end
  return true
end

-- Back uncounted, but not without end: a message that no consumer keeps dies of it.
local function give_back(lane, id, count, owner, delay)
  if count > 1000 then
    local body = body_of(lane, id)
    if count >= attempts_of(body) + 1000 then
      local failures = redis.call('HGET', KEYS[6], lane.ref .. '|' .. id)
      return to_dead(lane, id, count, body, 'unknown', '', failures, true)
    end
  end
  totals.released = totals.released + 1
  if owner == '~taken' and not admit(lane, id) then return 'o' end
  if delay == 0 then to_ready(lane, id) return 'o' end
  redis.call('XCLAIM', lane.key, group, '~delayed', 0, id, 'JUSTID')
  redis.call('ZADD', KEYS[3], now + delay, lane.ref .. '|' .. id)
  return 'o'
end
-- One more failed attempt: its record is kept, the newest 16 of them.
local function fail(lane, id, count, record, category, delay)
  local member, body = lane.ref .. '|' .. id, body_of(lane, id)
  local before = redis.call('HGET', KEYS[6], member)
  local failures = (before and struct.unpack('>I4', before) or 0) + 1
  local records = before and string.sub(before, 5) or ''
  if failures > 16 then records = string.sub(records, 5 + struct.unpack('>I4', records)) end
  records = records .. struct.pack('>I4', #record) .. record
  local attempts, initial, longest = attempts_of(body), tonumber(ARGV[4]), tonumber(ARGV[5])
  if body and string.byte(body, 1) == 2 then
    local first, most = struct.unpack('>I4I4', body, 7)
    if first < 4294967295 then initial = first end
    if most < 4294967295 then longest = most end
  end
  local kept = struct.pack('>I4', failures) .. records
  if failures >= attempts or count >= attempts + 1000 or not body then
    local verdict = to_dead(lane, id, count, body, category, record, kept, true)
    if verdict == 'd' then totals.failed = totals.failed + 1 end
    return verdict
  end
  totals.failed = totals.failed + 1
  redis.call('HSET', KEYS[6], member, kept)
  if delay < 0 then
    local backoff = math.min(longest, initial * 2 ^ math.min(failures - 1, 30))
    delay = math.floor(backoff * (-delay - 1) / 1000000)
  end
  if delay == 0 then to_ready(lane, id) return 'o' end
  redis.call('XCLAIM', lane.key, group, '~delayed', 0, id, 'JUSTID')
  redis.call('ZADD', KEYS[3], now + delay, member)
  return 'o'
end

-- An entry that ends in an index leaves it: a parked one would be let go a second time.
local function unindex(lane, id, owner, body)
  local member = lane.ref .. '|' .. id
  if owner == '~ready' then redis.call('ZREM', lane.ready, member) end
  if owner == '~delayed' then redis.call('ZREM', KEYS[3], member) end
  if owner == '~ordered' and body then
    redis.call('ZREM', KEYS[5], parked_member(lane, id, order_of(body)))
  end
end

local function judge(lane, id, count, consumer, session, attach, action, number, category, record)
  if room <= 0 then return 'b' end
  local row = redis.call('XPENDING', lane.key, group, id, id, 1)[1]
  if not row then return 'g' end
  if session ~= '*' then
    local held = redis.call('HGET', KEYS[1], consumer)
    local held_session, held_attach = string.match(held or '', '^(%S+) (%d+) ')
    if held_session ~= session or attach ~= '0' and held_attach ~= attach then
      return row[2] == consumer and 'f' or 's'
    end
  end
  if row[2] ~= consumer or row[4] ~= count then return 's' end
  if action == 'n' then return fail(lane, id, count, record, category, number) end
  if action == 'r' then return give_back(lane, id, count, row[2], number) end
  if action == 'l' or action == 'u' then
    if number > 0 and (row[3] < number or in_grace) then return 'i' end
    local verdict = action == 'l' and fail(lane, id, count, record, category, 0)
      or give_back(lane, id, count, row[2], 0)
    if number > 0 and verdict ~= 'k' then totals.expired = totals.expired + 1 end
    return verdict
  end
  local body = body_of(lane, id)
  local failures = redis.call('HGET', KEYS[6], lane.ref .. '|' .. id)
  if action == 'a' or action == 's' then
    local held = held_key(lane, id, body)
    if held == false then return 'k' end
    finish(lane, id, body)
    end_task(task_of(lane, id, body), action == 'a' and 'succeeded' or 'suspended', record,
      consumer, failures, 1)
    -- A question is neither a success nor a failure.
    if action == 'a' then totals.acked, totals.work = totals.acked + 1, totals.work + number end
    next_of_key(held)
    return 'o'
  end
  local verdict = to_dead(lane, id, count, body, category, record, failures, action == 'j',
    action == 'j' and 1)
  if verdict ~= 'k' then unindex(lane, id, row[2], body) end
  if action == 'j' and verdict == 'd' then totals.failed = totals.failed + 1 end
  return verdict
end

local verdicts, gone = {}, false
for i = 1, tonumber(ARGV[9]) do
  local lane = lane_of[ARGV[11 + tonumber(ARGV[at + 1])]]
  verdicts[i] = judge(lane, ARGV[at + 2], tonumber(ARGV[at + 3]), ARGV[at + 4], ARGV[at + 5],
    ARGV[at + 6], ARGV[at + 7], tonumber(ARGV[at + 8]), ARGV[at + 9], ARGV[at + 10])
  gone = gone or verdicts[i] == 'g'
  at = at + 10
end
-- A write, so that a caller who waits for the disk waits for the call that settled it.
if gone then redis.call('HINCRBY', KEYS[2], 'settled', 0) end
if totals.acked + totals.failed > 0 and not is_counted then
  redis.call('HSET', KEYS[2], 'minute' .. sixth, minute, 'acked' .. sixth, 0, 'failed' .. sixth, 0,
    'work' .. sixth, 0)
end
for _, name in ipairs({ 'settled', 'acked', 'failed', 'released', 'dead', 'expired' }) do
  if totals[name] > 0 then redis.call('HINCRBY', KEYS[2], name, totals[name]) end
end
for _, name in ipairs({ 'acked', 'failed', 'work' }) do
  if totals[name] > 0 then redis.call('HINCRBY', KEYS[2], name .. sixth, totals[name]) end
end
if totals.bytes > 0 then redis.call('HINCRBY', KEYS[2], 'bytes', -totals.bytes) end
if totals.told then redis.call('PUBLISH', KEYS[12], '') end
local reply = table.concat(verdicts)
if totals.settled + totals.failed + totals.released > 0 then
  redis.call('HSET', KEYS[9], slot, ARGV[7] .. ' ' .. reply)
  redis.call('EXPIRE', KEYS[9], 3600)
end
return { 'OK', reply }
