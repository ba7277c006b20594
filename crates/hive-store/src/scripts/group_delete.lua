#!lua flags=allow-oom
--[[
group_delete: remove a group that has nothing unsettled, in two steps around its definition.

Why one script: a message that arrives between the count and the removal would vanish. Whether a
group is empty is known here alone, so here its deletion is decided: it stays in state `deleting`,
without lanes and keys, until its definition says so too; whoever finds that goes on.

KEYS
  1 groups    hash    group -> `<state> <version>`
  2 lanes     hash    lane ref -> id of its newest entry
  3 dead      stream  dead letters of the shard
  4 counters  hash    totals of the group
  5 settled_below  hash  lane ref -> id up to which all was settled when its last group went
  6 sizes     hash    lane ref -> bytes that it holds; `~ outcomes` -> bytes of KEYS[9]
  7 tasks     hash    dispatch key, or `~<message id>` of a tracked message -> `open <s|a> <lane
                      ref>|<id>` while it is not decided
  8 settled   stream  what became of tasks, for the router; its name is its channel too
  9 outcomes  stream  what became of tracked messages; its name is its channel too
  10.. lane streams, then the other keys of the group
ARGV
  1 group       name
  2 retire      0|1     1: decide it of a live group; 0: remove one in state `deleting`
  3 lane_count  u53     lanes that follow
  4.. lanes of (ref)
RETURNS  { status, detail }
  RETIRED    ""         in state `deleting`, and if it was live its lanes and keys are gone
  DELETED    cancelled  gone, with its own lanes; so many of the last few messages that reached a
                        group in state `deleting` over lanes for all groups are dead letters
  NOT_EMPTY  count      so many are unsettled or, of a live group, scheduled, at least; nothing was
                        written
  LANES      ""         there are lanes that the caller does not know, or fewer; nothing was written
  ABSENT     ""         no such group
  LIVE       ""         it is not in state `deleting`; nothing was written
IDEMPOTENT  yes: the second call answers RETIRED or ABSENT
COST        O(lanes)
INVARIANTS  M1 (nothing accepted is lost), D1 (dead and removed in one step), T2
]]
local row = redis.call('HGET', KEYS[1], ARGV[1])
if not row then return { 'ABSENT', '' } end
local state, version = string.match(row, '^(%S+) (%d+)$')
local retire, lane_count = ARGV[2] == '1', tonumber(ARGV[3])
if retire and state == 'deleting' then return { 'RETIRED', '' } end
if not retire and state ~= 'deleting' then return { 'LIVE', '' } end
local named, there, own = {}, {}, ARGV[1] .. '/'
for l = 1, lane_count do named[ARGV[3 + l]] = true end
for _, ref in ipairs(redis.call('HKEYS', KEYS[2])) do
  there[ref] = true
  local mine = string.sub(ref, 1, #own) == own
  local shared = string.sub(ref, 1, 1) == '/' and not string.find(ref, '@', 1, true)
  if (mine or shared) and not named[ref] then return { 'LANES', '' } end
end
-- One that was retired meanwhile has no newest entry to note.
for l = 1, lane_count do
  if not there[ARGV[3 + l]] then return { 'LANES', '' } end
end
-- Publishers to all groups never pause, so the purge before a deletion never finds the very end:
-- up to a hundred messages that came behind it are cancelled here.
local limit = retire and 0 or 100
local pending, waiting = 0, {}
-- A delayed message is accepted as any other; a forced deletion has cancelled those of its lanes.
if retire then pending = tonumber(redis.call('HGET', KEYS[4], 'scheduled') or 0) end
for l = 1, lane_count do
  if redis.call('EXISTS', KEYS[9 + l]) == 1 then
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[9 + l])) do
      if info[2] == ARGV[1] then
        pending = pending + info[6]
        for _, entry in ipairs(redis.call('XRANGE', KEYS[9 + l], '(' .. info[8], '+', 'COUNT',
          limit + 1)) do
          waiting[#waiting + 1] = { ref = ARGV[3 + l], id = entry[1], body = entry[2][2] }
        end
      end
    end
  end
end
if pending > 0 or #waiting > limit then
  return { 'NOT_EMPTY', tostring(pending + #waiting) }
end
-- The end of a task; false where it was decided before: then it is no dead letter.
local told = false
local function end_task(one)
  if not string.find(one.ref, '/p%d[tr]') or string.byte(one.body, 1) ~= 2 then return true end
  local _, at = struct.unpack('>Hc0', one.body, 23)
  local key = struct.unpack('>Hc0', one.body, at)
  local row = redis.call('HGET', KEYS[7], key) or ''
  if string.match(row, '^open %a (.*)$') ~= one.ref .. '|' .. one.id then return false end
  local to = string.find(one.ref, '/p%dr') and KEYS[9] or KEYS[8]
  local record = redis.call('XADD', to, '*', 'd', key, 'k', 'ended', 'o', 'dead_lettered', 'b',
    'cancelled')
  redis.call('HSET', KEYS[7], key, 'ended dead_lettered ' .. record)
  if to == KEYS[8] then told = true return true end
  redis.call('HINCRBY', KEYS[6], '~ outcomes', 128 + #key + #'cancelled')
  redis.call('PUBLISH', to, key)
  return true
end
local cancelled = 0
for _, one in ipairs(waiting) do
  if end_task(one) then
    redis.call('XADD', KEYS[3], '*', 'm', one.body, 'group', ARGV[1], 'lane', one.ref, 'id',
      one.id, 'count', 0, 'category', 'cancelled', 'record', '', 'failures', '')
    cancelled = cancelled + 1
  end
end
if told then redis.call('PUBLISH', KEYS[8], '') end
for l = 1, lane_count do
  local ref = ARGV[3 + l]
  if string.sub(ref, 1, #own) == own then
    redis.call('UNLINK', KEYS[9 + l])
    redis.call('HDEL', KEYS[2], ref)
    redis.call('HDEL', KEYS[6], ref, ref .. ' scheduled')
  elseif redis.call('EXISTS', KEYS[9 + l]) == 1 then
    redis.call('XGROUP', 'DESTROY', KEYS[9 + l], ARGV[1])
    if #redis.call('XINFO', 'GROUPS', KEYS[9 + l]) == 0 then
      redis.call('HSET', KEYS[5], ref, redis.call('HGET', KEYS[2], ref))
    end
  end
end
for k = 10 + lane_count, #KEYS do redis.call('UNLINK', KEYS[k]) end
if retire then
  redis.call('HSET', KEYS[1], ARGV[1], 'deleting ' .. version)
  return { 'RETIRED', '' }
end
redis.call('HDEL', KEYS[1], ARGV[1])
return { 'DELETED', tostring(cancelled) }
