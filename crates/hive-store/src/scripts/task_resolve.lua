#!lua flags=allow-oom
--[[
task_resolve: decide the outcome of a task or tracked message from outside, wherever its entry is.

Why one script: an agent that acks between the look and the deciding would have a result that nobody
takes; the row, the entry, the counters and what the router is told change together.

KEYS
  1 tasks     hash    dispatch key, or `~<message id>` of a tracked message -> `open <s|a> <lane
                      ref>|<id>`, `acked`, or `ended <outcome> <id of its record>`; of a tracked
                      message with a delay its id is its member of KEYS[7]
  2 settled   stream  what became of tasks, for the router, or for a tracked message `outcomes`,
                      what became of those; its name is its channel too
  3 cancels   channel on which gateways hear that a lease of theirs is over
  4 counters  hash    totals of the group
  5 delayed   zset    `<lane ref>|<id>` by due time
  6 failures  hash    `<lane ref>|<id>` -> count and records
  7 scheduled zset    scheduled member by due time
  8 bodies    hash    scheduled member -> `<lane ref> <body>`
  9 sizes     hash    lane ref -> bytes that it holds; `<lane ref> scheduled` -> messages;
                      `~ outcomes` -> bytes of what is kept there
  10.. of an open row its lane's stream and ready zset
ARGV
  1 group         name
  2 dispatch_key  text
  3 outcome       code
  4 detail        bytes   result or reason
  5 ref           ref     lane that the row named when the caller looked, "" for none
RETURNS  { status, detail, ... }
  ENDED    lane ref, id, consumer, count   decided now; of the delivery that a consumer held, else
                                           "", "", "", 0
  ALREADY  outcome                         this was decided before; nothing was written
  MOVED    ref                             the row names another lane; nothing was written
IDEMPOTENT  yes: the second call answers ALREADY
COST        O(log n), and the entry's body
INVARIANTS  M4, M7 (an entry is settled once), T1, T2 (one outcome for a dispatch key)
]]
local group, key, outcome = ARGV[1], ARGV[2], ARGV[3]
local row = redis.call('HGET', KEYS[1], key) or ''
local before = string.match(row, '^ended (%S+) ')
if before then
  -- A write, so that a caller who waits for the disk waits for the call that decided it.
  redis.call('HSET', KEYS[1], key, row)
  return { 'ALREADY', before }
end
local ref, id = string.match(row, '^open %a (.*)|(.-)$')
if (ref or '') ~= ARGV[5] then return { 'MOVED', ref or '' } end

local held
local is_tracked = string.sub(key, 1, 1) == '~'
local is_later = ref and not string.match(id, '^%d+%-%d+$')
if is_later and redis.call('ZREM', KEYS[7], id) == 1 then
  local body = string.match(redis.call('HGET', KEYS[8], id) or '', '^%S+ (.*)$') or ''
  redis.call('HDEL', KEYS[8], id)
  redis.call('HINCRBY', KEYS[4], 'scheduled', -1)
  if body ~= '' then redis.call('HINCRBY', KEYS[4], 'bytes', -#body) end
  if redis.call('HINCRBY', KEYS[9], ref .. ' scheduled', -1) <= 0 then
    redis.call('HDEL', KEYS[9], ref .. ' scheduled')
  end
end
local failures
if ref and not is_later then
  -- A lane that lost its group holds nothing that is pending.
  local rows = redis.pcall('XPENDING', KEYS[10], group, id, id, 1)
  local pending = not rows.err and rows[1]
  if pending then
    local member = ref .. '|' .. id
    local entry = redis.call('XRANGE', KEYS[10], id, id)[1]
    failures = redis.call('HGET', KEYS[6], member)
    redis.call('XACK', KEYS[10], group, id)
    redis.call('ZREM', KEYS[11], member)
    redis.call('ZREM', KEYS[5], member)
    redis.call('HDEL', KEYS[6], member)
    redis.call('HINCRBY', KEYS[4], 'settled', 1)
    local bytes = entry and #entry[2][2] or 0
    if bytes > 0 then redis.call('HINCRBY', KEYS[4], 'bytes', -bytes) end
    if string.sub(pending[2], 1, 1) ~= '~' then
      held = { consumer = pending[2], count = pending[4] }
    end
  elseif is_tracked then
    -- Never delivered, and its lane is of this group alone: it need not wait for a fetch to go.
    local entry = redis.call('XRANGE', KEYS[10], id, id)[1]
    if entry then
      redis.call('XDEL', KEYS[10], id)
      redis.call('HINCRBY', KEYS[4], 'settled', 1)
      redis.call('HINCRBY', KEYS[4], 'bytes', -#entry[2][2])
      redis.call('HINCRBY', KEYS[9], ref, -#entry[2][2])
    end
  end
end
local attempts = (failures and struct.unpack('>I4', failures) or 0) + (held and 1 or 0)
local settled = redis.call('XADD', KEYS[2], '*', 'd', key, 'k', 'ended', 'o', outcome, 'b', ARGV[4],
  unpack(is_tracked and { 'c', held and held.consumer or '', 'n', attempts } or {}))
redis.call('HSET', KEYS[1], key, 'ended ' .. outcome .. ' ' .. settled)
if is_tracked then redis.call('HINCRBY', KEYS[9], '~ outcomes', 128 + #key + #ARGV[4]) end
redis.call('PUBLISH', KEYS[2], is_tracked and key or '')
if not held then return { 'ENDED', '', '', '', 0 } end
redis.call('PUBLISH', KEYS[3],
  table.concat({ group, held.consumer, ref, id, tostring(held.count) }, ' '))
return { 'ENDED', ref, id, held.consumer, held.count }
