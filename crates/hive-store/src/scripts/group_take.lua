#!lua flags=allow-oom
--[[
group_take: lease never delivered messages of a lane to a placeholder, for a purge or an expiry.

Why one script: the read and the check of what is read are one step; what must stay is not read.

KEYS
  1 lane    stream
  2 groups  hash    group -> `<state> <version>`
ARGV
  1 group    name
  2 limit    u53     most entries to take
  3 below    id      only entries older than this id, or `+` for all
  4 expired  0|1     1: only entries whose time to live has passed, from the head on
  5 now_ms   u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, ids }
  OK  ids taken, none where the group is absent; they are `~taken`'s with delivery count 1, to be
      settled by the caller
IDEMPOTENT  no: what a lost reply took is found by the sweep, and given back
COST        O(limit); reads 2 MiB, give or take a page of ten, and what it takes once more; one
            entry where its head is to stay
INVARIANTS  M1 (nothing is dropped), M4
]]
local now = tonumber(ARGV[5])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return { 'OK', {} } end
local last
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if info[2] == ARGV[1] then last = info[8] end
end
if not last then return { 'OK', {} } end
local below = tonumber(string.match(ARGV[3], '^%d+')) or 9007199254740991
local function is_wanted(id, body)
  local expires = string.byte(body, 1) == 2 and struct.unpack('>I8', body, 15) or 0
  return tonumber(string.match(id, '^%d+')) < below
    and (ARGV[4] ~= '1' or expires > 0 and expires <= now)
end
-- The head alone at first: of most lanes it is to stay.
local from, limit, count, is_end = last, tonumber(ARGV[2]), 0, false
local room, largest = 2097152, 2097152
while count < limit and room > 0 and not is_end do
  local want = math.min(10, limit - count, math.max(1, math.floor(room / largest)))
  local page = redis.call('XRANGE', KEYS[1], '(' .. from, '+', 'COUNT', want)
  if count == 0 then largest = 1 end
  is_end = #page < want
  for _, entry in ipairs(page) do
    from = entry[1]
    room, largest = room - #entry[2][2], math.max(largest, #entry[2][2])
    if not is_wanted(from, entry[2][2]) then is_end = true break end
    count = count + 1
  end
end
if count == 0 then return { 'OK', {} } end
local read = redis.call('XREADGROUP', 'GROUP', ARGV[1], '~taken', 'COUNT', count,
  'STREAMS', KEYS[1], '>')
local ids = {}
for _, entry in ipairs(read and read[1][2] or {}) do ids[#ids + 1] = entry[1] end
return { 'OK', ids }
