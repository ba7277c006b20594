#!lua flags=allow-oom
--[[
delayed_shift: move the due times of a group's backoffs back by as much as the clock went back.

Why one script: how far the walk came is noted in the step that shifts, so that a walk that is cut
off goes on and shifts no entry twice.

KEYS
  1 delayed  zset    `<lane ref>|<id>` by due time
  2 clock    hash    back_ms, back_from, and per group `at:<group>`: how far its walk came
ARGV
  1 group  name
  2 limit  u53   about so many entries to shift
RETURNS  { status, shifted }
  OK    shifted  call again
  DONE  0        the clock did not go back, or all are shifted
IDEMPOTENT  yes
COST        2 us an entry
INVARIANTS  M4 (an entry stays in its index)
]]
local at = 'at:' .. ARGV[1]
local row = redis.call('HMGET', KEYS[2], 'back_ms', 'back_from', at)
local back, from = tonumber(row[1] or 0), row[3] or row[2]
if back == 0 or from == 'done' then return { 'DONE', '0' } end
-- What is shifted comes to lie before the cursor: only entries behind it are still to be shifted.
local page = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. from, '+inf', 'WITHSCORES', 'LIMIT', 0,
  ARGV[2])
if #page == 0 then
  redis.call('HSET', KEYS[2], at, 'done')
  return { 'DONE', '0' }
end
local last = page[#page]
page = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. from, last, 'WITHSCORES')
for i = 1, #page, 2 do redis.call('ZADD', KEYS[1], tonumber(page[i + 1]) - back, page[i]) end
redis.call('HSET', KEYS[2], at, last)
return { 'OK', tostring(#page / 2) }
