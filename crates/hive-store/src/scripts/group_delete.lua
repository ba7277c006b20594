#!lua flags=allow-oom
--[[
group_delete: remove a group that is being deleted and has nothing unsettled.

Why one script: a message that arrives between the count and the removal would vanish.

KEYS
  1 groups  hash    group -> `<state> <version>`
  2 lanes   hash    lane ref -> id of its newest entry
  3.. lane streams, then the other keys of the group
ARGV
  1 group       name
  2 lane_count  u53     lanes that follow
  3.. lanes of (ref)
RETURNS  { status, detail }
  DELETED    ""     gone, with its own lanes
  NOT_EMPTY  count  so many are unsettled, at least; nothing was written
  LANES      ""     there are lanes that the caller does not know; nothing was written
  ABSENT     ""     no such group
IDEMPOTENT  yes: the second call answers ABSENT
COST        O(lanes)
INVARIANTS  M1 (nothing accepted is lost)
]]
local row = redis.call('HGET', KEYS[1], ARGV[1])
if not row then return { 'ABSENT', '' } end
local named, own = {}, ARGV[1] .. '/'
for l = 1, tonumber(ARGV[2]) do named[ARGV[2 + l]] = true end
for _, ref in ipairs(redis.call('HKEYS', KEYS[2])) do
  local mine = string.sub(ref, 1, #own) == own
  local shared = string.sub(ref, 1, 1) == '/' and not string.find(ref, '@', 1, true)
  if (mine or shared) and not named[ref] then return { 'LANES', '' } end
end
local unsettled = 0
for l = 1, tonumber(ARGV[2]) do
  if redis.call('EXISTS', KEYS[2 + l]) == 1 then
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2 + l])) do
      if info[2] == ARGV[1] then
        unsettled = unsettled + info[6]
          + #redis.call('XRANGE', KEYS[2 + l], '(' .. info[8], '+', 'COUNT', 1)
      end
    end
  end
end
if unsettled > 0 then return { 'NOT_EMPTY', tostring(unsettled) } end
for l = 1, tonumber(ARGV[2]) do
  local ref = ARGV[2 + l]
  if string.sub(ref, 1, #own) == own then
    redis.call('UNLINK', KEYS[2 + l])
    redis.call('HDEL', KEYS[2], ref)
  elseif redis.call('EXISTS', KEYS[2 + l]) == 1 then
    redis.call('XGROUP', 'DESTROY', KEYS[2 + l], ARGV[1])
  end
end
for k = 3 + tonumber(ARGV[2]), #KEYS do redis.call('UNLINK', KEYS[k]) end
redis.call('HDEL', KEYS[1], ARGV[1])
return { 'DELETED', '' }
