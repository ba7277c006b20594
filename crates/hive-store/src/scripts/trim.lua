#!lua flags=allow-oom
--[[
trim: delete settled messages of a lane that retention no longer keeps.

Why one script: the oldest unsettled entry of every group is read in the step that deletes; a group
that is created or an entry that is leased meanwhile loses nothing.

KEYS
  1 lane  stream
ARGV
  1 max_age_ms  u53     keep settled messages for so long
  2 max_len     u53     keep at most so many
  3 limit       u53     most entries to delete in this call
  4 now_ms      u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, deleted }
  OK  deleted  call again while it equals the limit
IDEMPOTENT  yes
COST        O(groups + deleted)
INVARIANTS  M1 (nothing unsettled is trimmed)
]]
local now = tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local length = redis.call('XLEN', KEYS[1])
if length == 0 then return { 'OK', '0' } end
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
-- A lane without groups holds messages for groups to come: `buffered_expire` ends them.
if #groups == 0 then return { 'OK', '0' } end
local function before(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  am, bm = tonumber(am), tonumber(bm)
  return am < bm or am == bm and tonumber(as) < tonumber(bs)
end
local floor
for _, info in ipairs(groups) do
  local oldest = info[8]
  local pending = info[6] > 0 and redis.call('XPENDING', KEYS[1], info[2])
  if pending and pending[2] then
    oldest = pending[2]
  else
    -- Everything up to the last delivered id is settled: the floor is behind it.
    local ms, seq = string.match(oldest, '^(%d+)-(%d+)$')
    oldest = ms .. '-' .. string.format('%.0f', tonumber(seq) + 1)
  end
  if not floor or before(oldest, floor) then floor = oldest end
end
local limit, excess = tonumber(ARGV[3]), length - tonumber(ARGV[2])
local cut = string.format('%.0f', math.max(0, now - tonumber(ARGV[1]))) .. '-0'
if excess > 0 then
  local rows = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', math.min(limit, excess) + 1)
  local last = rows[#rows][1]
  if #rows <= math.min(limit, excess) then last = '9007199254740991-0' end
  if before(cut, last) then cut = last end
end
if before(floor, cut) then cut = floor end
local slice = redis.call('XRANGE', KEYS[1], '-', '(' .. cut, 'COUNT', limit)
if #slice == 0 then return { 'OK', '0' } end
if #slice == limit then
  local ids = {}
  for i, entry in ipairs(slice) do ids[i] = entry[1] end
  return { 'OK', tostring(redis.call('XDEL', KEYS[1], unpack(ids))) }
end
return { 'OK', tostring(redis.call('XTRIM', KEYS[1], 'MINID', '=', cut)) }
