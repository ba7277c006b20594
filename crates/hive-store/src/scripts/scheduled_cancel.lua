#!lua flags=allow-oom
--[[
scheduled_cancel: move delayed messages of a group that is being deleted to the dead letters.

Why one script: between the dead letter and the removal, a crash would lose or double the message;
left where they are, they would reach a new group of the same name.

KEYS
  1 scheduled  zset    member by due time
  2 bodies     hash    member -> `<lane ref> <body>`
  3 dead       stream  dead letters of the shard
  4 groups     hash    group -> `<state> <version>`
ARGV
  1 group   name
  2 cursor  u53     0, or what the last call answered
  3 limit   u53     about so many messages to look at
RETURNS  { status, cursor, moved }
  OK    cursor, moved  call again with the cursor until it is 0
  LIVE  "", 0          the group is absent or not being deleted; nothing was written
IDEMPOTENT  yes
COST        O(limit), 4 us a message that is moved
INVARIANTS  M1 (nothing accepted is lost), D1 (dead and gone in one step)
]]
local state = redis.call('HGET', KEYS[4], ARGV[1])
if not state or string.sub(state, 1, 8) ~= 'deleting' then return { 'LIVE', '', '0' } end
-- A member is `<flush>.<number>/<lane ref>`, and a flush is named without a slash.
local page = redis.call('ZSCAN', KEYS[1], ARGV[2], 'MATCH', '*/' .. ARGV[1] .. '/p*', 'COUNT',
  ARGV[3])
local moved = 0
for i = 1, #page[2], 2 do
  local member = page[2][i]
  local ref, body = string.match(redis.call('HGET', KEYS[2], member) or '', '^(%S+) (.*)$')
  if ref then
    redis.call('XADD', KEYS[3], '*', 'm', body, 'group', ARGV[1], 'lane', ref, 'id', member,
      'count', 0, 'category', 'cancelled', 'record', '', 'failures', '')
    moved = moved + 1
  end
  redis.call('ZREM', KEYS[1], member)
  redis.call('HDEL', KEYS[2], member)
end
return { 'OK', page[1], tostring(moved) }
