#!lua flags=allow-oom
--[[
waiting_expire: dead-letter never delivered messages whose time to live passed, in mid-lane.

Why one script: a message that is delivered between the look and the deletion would be handed to a
consumer and be a dead letter besides.

KEYS
  1 lane      stream
  2 dead      stream  dead letters of the shard
  3 counters  hash    totals of the group
  4 sizes     hash    lane ref -> bytes that it holds; `~ outcomes` -> bytes of what is kept there
  5 tasks     hash    dispatch key, or `~<message id>` of a tracked message -> `open <s|a> <lane
                      ref>|<id>` while it is not decided
  6 settled   stream  what became of tasks, for the router, or of a lane of tracked messages
                      `outcomes`, what became of those; its name is its channel too
ARGV
  1 group     name    the one that reads the lane
  2 ref       ref     of the lane
  3 from      id      `-`, or `(<id>` to go on behind it
  4 limit     u53     most messages to look at
  5 category  code    of the dead letters
  6 record    bytes   what is said of it in the dead letter
  7 now_ms    u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, last, expired }
  OK      last, expired  so many are dead letters now, but for tasks that were decided before; go on
                         behind the id `last`, empty at the end
  SHARED  "", 0          other groups read the lane, or this one does not; nothing was written
IDEMPOTENT  yes
COST        O(limit); reads 4 MiB, give or take a page of ten
INVARIANTS  M1 (nothing accepted is lost), D1 (dead and gone in one step), T2
]]
local now = tonumber(ARGV[7])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if redis.call('EXISTS', KEYS[1]) == 0 then return { 'SHARED', '', '0' } end
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
-- Only where nobody else is to read an entry may it be deleted before it was read.
if #groups ~= 1 or groups[1][2] ~= ARGV[1] then return { 'SHARED', '', '0' } end
local function before(a, b)
  local am, as = string.match(a, '(%d+)-(%d+)$')
  local bm, bs = string.match(b, '(%d+)-(%d+)$')
  am, bm = tonumber(am), tonumber(bm)
  return am < bm or am == bm and tonumber(as) < tonumber(bs)
end
local from = ARGV[3]
if from == '-' or before(from, groups[1][8]) then from = '(' .. groups[1][8] end
local left, room, largest, last = tonumber(ARGV[4]), 4194304, nil, ''
local expired, dead, bytes = 0, 0, 0
-- The end of a task; false where it was decided before: then it is no dead letter.
local of_tasks, told = string.find(ARGV[2], '/p%d[tr]'), false
local is_tracked = string.find(ARGV[2], '/p%dr')
local function end_task(id, body)
  if not of_tasks then return true end
  local _, at = struct.unpack('>Hc0', body, 23)
  local key = struct.unpack('>Hc0', body, at)
  local row = redis.call('HGET', KEYS[5], key) or ''
  if string.match(row, '^open %a (.*)$') ~= ARGV[2] .. '|' .. id then return false end
  local record = redis.call('XADD', KEYS[6], '*', 'd', key, 'k', 'ended', 'o', 'dead_lettered', 'b',
    ARGV[5])
  redis.call('HSET', KEYS[5], key, 'ended dead_lettered ' .. record)
  if not is_tracked then told = true return true end
  redis.call('HINCRBY', KEYS[4], '~ outcomes', 128 + #key + #ARGV[5])
  redis.call('PUBLISH', KEYS[6], key)
  return true
end
while left > 0 and room > 0 do
  local want = math.min(10, left, math.max(1, math.floor(room / (largest or 1048576))))
  local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', want)
  for _, entry in ipairs(page) do
    local body = entry[2][2]
    local expires = string.byte(body, 1) == 2 and struct.unpack('>I8', body, 15) or 0
    room, largest = room - #body, math.max(largest or 1, #body)
    if expires > 0 and expires <= now then
      if end_task(entry[1], body) then
        redis.call('XADD', KEYS[2], '*', 'm', body, 'group', ARGV[1], 'lane', ARGV[2], 'id',
          entry[1], 'count', 0, 'category', ARGV[5], 'record', ARGV[6], 'failures', '')
        dead = dead + 1
      end
      redis.call('XDEL', KEYS[1], entry[1])
      bytes, expired = bytes + #body, expired + 1
    end
  end
  last = #page == want and page[want][1] or ''
  if last == '' then break end
  left, from = left - want, '(' .. last
end
if expired > 0 then
  redis.call('HINCRBY', KEYS[3], 'settled', expired)
  redis.call('HINCRBY', KEYS[3], 'dead', dead)
  redis.call('HINCRBY', KEYS[3], 'bytes', -bytes)
  redis.call('HINCRBY', KEYS[4], ARGV[2], -bytes)
end
if told then redis.call('PUBLISH', KEYS[6], '') end
return { 'OK', last, tostring(expired) }
