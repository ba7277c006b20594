#!lua flags=allow-oom
--[[
scheduled_cancel: move delayed messages of a group that is deleted or purged to the dead letters.
Those of its own lanes: what is delayed for all groups stays theirs.

Why one script: between the dead letter and the removal, a crash would lose or double the message;
left where they are, they would reach a new group of the same name.

KEYS
  1 scheduled  zset    member by due time
  2 bodies     hash    member -> `<lane ref> <body>`
  3 dead       stream  dead letters of the shard
  4 groups     hash    group -> `<state> <version>`
  5 counters   hash    totals of the group
  6 sizes      hash    `<lane ref> scheduled` -> messages; `~ outcomes` -> bytes of KEYS[8]
  7 tasks      hash    `~<message id>` of a tracked message -> `open a <lane ref>|<member>`
  8 outcomes   stream  what became of tracked messages; its name is its channel too
ARGV
  1 group   name
  2 cursor  u53     0, or what the last call answered
  3 limit   u53     about so many messages to look at
  4 purge   0|1     1: of a group that stays; 0: of one in state `deleting`, whose counters go too
RETURNS  { status, cursor, moved }
  OK    cursor, moved  call again with the cursor until it is 0
  LIVE  "", 0          the group is absent or not in that state; nothing was written
IDEMPOTENT  yes
COST        O(limit), 4 us a message that is moved
INVARIANTS  M1 (nothing accepted is lost), D1 (dead and gone in one step)
]]
local state = redis.call('HGET', KEYS[4], ARGV[1])
local purge = ARGV[4] == '1'
if not state or (string.sub(state, 1, 8) == 'deleting') == purge then return { 'LIVE', '', '0' } end
-- A member is `<flush>.<number>/<lane ref>`, and a flush is named without a slash.
local page = redis.call('ZSCAN', KEYS[1], ARGV[2], 'MATCH', '*/' .. ARGV[1] .. '/p*', 'COUNT',
  ARGV[3])
-- What becomes of a tracked message is told; of one that was decided before it was.
local function end_tracked(member, ref, body)
  if not string.find(ref, '/p%dr') or string.byte(body, 1) ~= 2 then return end
  local _, at = struct.unpack('>Hc0', body, 23)
  local key = struct.unpack('>Hc0', body, at)
  if redis.call('HGET', KEYS[7], key) ~= 'open a ' .. ref .. '|' .. member then return end
  local record = redis.call('XADD', KEYS[8], '*', 'd', key, 'k', 'ended', 'o', 'dead_lettered', 'b',
    'cancelled')
  redis.call('HSET', KEYS[7], key, 'ended dead_lettered ' .. record)
  redis.call('HINCRBY', KEYS[6], '~ outcomes', 128 + #key + #'cancelled')
  redis.call('PUBLISH', KEYS[8], key)
end
local moved, bytes = 0, 0
for i = 1, #page[2], 2 do
  local member = page[2][i]
  local ref, body = string.match(redis.call('HGET', KEYS[2], member) or '', '^(%S+) (.*)$')
  if ref then
    redis.call('XADD', KEYS[3], '*', 'm', body, 'group', ARGV[1], 'lane', ref, 'id', member,
      'count', 0, 'category', 'cancelled', 'record', '', 'failures', '')
    moved, bytes = moved + 1, bytes + #body
    end_tracked(member, ref, body)
    if redis.call('HINCRBY', KEYS[6], ref .. ' scheduled', -1) <= 0 then
      redis.call('HDEL', KEYS[6], ref .. ' scheduled')
    end
  end
  redis.call('ZREM', KEYS[1], member)
  redis.call('HDEL', KEYS[2], member)
end
if moved > 0 and purge then
  redis.call('HINCRBY', KEYS[5], 'scheduled', -moved)
  redis.call('HINCRBY', KEYS[5], 'dead', moved)
  redis.call('HINCRBY', KEYS[5], 'bytes', -bytes)
end
return { 'OK', page[1], tostring(moved) }
