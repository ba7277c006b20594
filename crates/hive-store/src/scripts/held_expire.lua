#!lua flags=allow-oom
--[[
held_expire: dead-letter direct messages that no consumer came for within their time to live.

Why one script: between the dead letter and the deletion, a crash would lose or double the message.

KEYS
  1 held  stream  the lane that holds them; no group reads it
  2 dead  stream  dead letters of the shard
  3 sizes hash    lane ref -> bytes that it holds
ARGV
  1 ref     ref     of the lane
  2 from    id      `-`, or `(<id>` to go on behind it
  3 limit   u53     most messages to look at
  4 now_ms  u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, last, expired }
  OK  last, expired  so many are dead letters now, in the category `no_capable_consumer`; go on
                     behind the id `last`, empty at the end
IDEMPOTENT  yes
COST        O(limit); reads 4 MiB, give or take a page of ten
INVARIANTS  M1 (nothing accepted is lost), D1 (dead and gone in one step)
]]
local now = tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local from, left, room, largest, last, expired = ARGV[2], tonumber(ARGV[3]), 4194304, nil, '', 0
while left > 0 and room > 0 do
  local want = math.min(10, left, math.max(1, math.floor(room / (largest or 1048576))))
  local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', want)
  for _, entry in ipairs(page) do
    local body = entry[2][2]
    local expires = string.byte(body, 1) == 2 and struct.unpack('>I8', body, 15) or 0
    room, largest = room - #body, math.max(largest or 1, #body)
    if expires > 0 and expires <= now then
      redis.call('XADD', KEYS[2], '*', 'm', body, 'group', '', 'lane', ARGV[1], 'id', entry[1],
        'count', 0, 'category', 'no_capable_consumer', 'record', '', 'failures', '')
      redis.call('XDEL', KEYS[1], entry[1])
      redis.call('HINCRBY', KEYS[3], ARGV[1], -#body)
      expired = expired + 1
    end
  end
  last = #page == want and page[want][1] or ''
  if last == '' then break end
  left, from = left - want, '(' .. last
end
return { 'OK', last, tostring(expired) }
