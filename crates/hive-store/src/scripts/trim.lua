#!lua flags=allow-oom
--[[
trim: delete settled messages of a lane that retention no longer keeps, also behind a pinned head.

Why one script: the positions and the deliveries of every group are read in the step that deletes; a
group that is created or an entry that is leased meanwhile loses nothing.

KEYS
  1 lane   stream
  2 sizes  hash    lane ref -> bytes that it holds
ARGV
  1 ref         ref     of the lane
  2 max_age_ms  u53     keep settled messages for so long
  3 max_len     u53     keep at most so many
  4 max_bytes   u53     keep at most so many bytes
  5 from        id      `-`, or `(<id>` to go on behind it
  6 limit       u53     most entries to look at in this call
  7 now_ms      u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, deleted, next }
  OK  deleted, next  go on from `next`; empty at the end, or where all that follows is kept
IDEMPOTENT  yes
COST        O(groups + looked at), about 2 us an entry; reads 4 MiB and ten entries at most
INVARIANTS  M1 (nothing unsettled is deleted: an entry goes once it is behind the position of every
            group and pending in none; a dead letter holds a copy of its message, not a reference)
]]
local lane, ref = KEYS[1], ARGV[1]
local now = tonumber(ARGV[7])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local length = redis.call('XLEN', lane)
local bytes = math.max(0, tonumber(redis.call('HGET', KEYS[2], ref) or 0))
if length == 0 then
  if bytes > 0 then redis.call('HDEL', KEYS[2], ref) end
  return { 'OK', '0', '' }
end
local groups = redis.call('XINFO', 'GROUPS', lane)
-- A lane without groups holds messages for groups to come: `buffered_expire` ends them.
if #groups == 0 then return { 'OK', '0', '' } end
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local function after(a, b)
  local am, as = parts(a)
  local bm, bs = parts(b)
  return am > bm or am == bm and as > bs
end
local read_up_to
for _, info in ipairs(groups) do
  if not read_up_to or after(read_up_to, info[8]) then read_up_to = info[8] end
end
local limit, slice, read, from, is_last = tonumber(ARGV[6]), {}, 0, ARGV[5], false
while #slice < limit and read < 4194304 and not is_last do
  local want = math.min(10, limit - #slice)
  local page = redis.call('XRANGE', lane, from, read_up_to, 'COUNT', want)
  for _, entry in ipairs(page) do
    slice[#slice + 1] = { entry[1], #entry[2][2] }
    read = read + #entry[2][2]
  end
  is_last = #page < want
  if #page > 0 then from = '(' .. page[#page][1] end
end
if #slice == 0 then return { 'OK', '0', '' } end
local last = slice[#slice][1]
local pending = {}
for _, info in ipairs(groups) do
  local rows = info[6] > 0
    and redis.call('XPENDING', lane, info[2], slice[1][1], last, limit + 500) or {}
  for _, row in ipairs(rows) do pending[row[1]] = true end
  -- Behind the last row there may be more that are pending: deliveries whose entries are gone too.
  if #rows == limit + 500 and after(last, rows[#rows][1]) then
    last, is_last = rows[#rows][1], false
  end
end
local age, max_len, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
-- What goes from the head on is cut off with its nodes; one by one only what lies behind an entry
-- that stays.
local head = redis.call('XRANGE', lane, '-', '+', 'COUNT', 1)[1][1] == slice[1][1]
local ids, freed, gone, cut, kept = {}, 0, 0, nil, false
for _, entry in ipairs(slice) do
  local id, size = entry[1], entry[2]
  local is_old = parts(id) < now - age
  if after(id, last) then break end
  if not is_old and length - gone <= max_len and bytes - freed <= max_bytes then
    kept = true
    break
  end
  if pending[id] then
    head = false
  else
    gone, freed = gone + 1, freed + size
    if head then cut = id else ids[#ids + 1] = id end
  end
end
if gone > 0 then
  if cut then
    local ms, seq = string.match(cut, '^(%d+)-(%d+)$')
    redis.call('XTRIM', lane, 'MINID', '=', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
  end
  if #ids > 0 then redis.call('XDEL', lane, unpack(ids)) end
  -- An older version did not count: what is left is never less than nothing.
  local less = math.min(bytes, freed)
  if less > 0 then redis.call('HINCRBY', KEYS[2], ref, string.format('%.0f', -less)) end
end
local is_end = kept or is_last
return { 'OK', tostring(gone), is_end and '' or '(' .. last }
