#!lua flags=allow-oom
--[[
group_state: set the state of a group on a shard.

Why one script: an older definition must not undo what a newer one set.

KEYS
  1 groups  hash    group -> `<state> <version>`
ARGV
  1 group    name
  2 state    active|paused|deleting
  3 version  u53     version of the definition that says so
RETURNS  { status, detail }
  SET     ""       it is so now
  STALE   version  a newer definition was there; nothing was written
  ABSENT  ""       no such group
IDEMPOTENT  yes
COST        O(1)
INVARIANTS  E1 (fencing)
]]
local row = redis.call('HGET', KEYS[1], ARGV[1])
if not row then return { 'ABSENT', '' } end
local state, version = string.match(row, '^(%S+) (%d+)$')
if tonumber(version) > tonumber(ARGV[3]) or state == 'deleting' and ARGV[2] ~= 'deleting' then
  return { 'STALE', version }
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
return { 'SET', '' }
