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
COST        O(groups + looked at), about 1.5 us an entry of 300 bytes and 6 of 3,000; reads 1 MiB,
            2 ms, and a page at most, which is forty entries or fewer
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
local limit, from, is_last = tonumber(ARGV[6]), ARGV[5], false
-- A call costs as much as five small entries, and a page is held in memory: it is to have 64 KiB,
-- judged by the lane's mean size and then by the page before.
local function page_of(count, size)
  return math.max(1, math.min(40, math.floor(65536 * count / size)))
end
local slice, sizes, read, want = {}, {}, 0, page_of(length, math.max(bytes, length))
while #slice < limit and read < 1048576 and not is_last do
  want = math.min(want, limit - #slice)
  local page, before = redis.call('XRANGE', lane, from, read_up_to, 'COUNT', want), read
  for _, entry in ipairs(page) do
    local size = #entry[2][2]
    slice[#slice + 1], sizes[#sizes + 1], read = entry[1], size, read + size
  end
  is_last = #page < want
  if #page > 0 then from = '(' .. page[#page][1] end
  want = page_of(#page, math.max(read - before, 1))
end
if #slice == 0 then return { 'OK', '0', '' } end
local last, is_short = slice[#slice], false
local pending = {}
for _, info in ipairs(groups) do
  local rows = info[6] > 0
    and redis.call('XPENDING', lane, info[2], slice[1], last, limit + 500) or {}
  for _, row in ipairs(rows) do pending[row[1]] = true end
  -- Behind the last row there may be more that are pending: deliveries whose entries are gone too.
  if #rows == limit + 500 and after(last, rows[#rows][1]) then
    last, is_last, is_short = rows[#rows][1], false, true
  end
end
local max_len, max_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
-- Ids rise: where the last one is old, all are. Taking an id apart costs as much as reading it.
local limit_ms = now - tonumber(ARGV[2])
local all_old = parts(last) < limit_ms
-- What goes from the head on is cut off with its nodes; one by one only what lies behind an entry
-- that stays.
local head = ARGV[5] == '-'
  or redis.call('XRANGE', lane, '-', '+', 'COUNT', 1)[1][1] == slice[1]
local ids, freed, gone, cut, kept = {}, 0, 0, nil, false
for i, id in ipairs(slice) do
  if is_short and after(id, last) then break end
  if not all_old and length - gone <= max_len and bytes - freed <= max_bytes
    and parts(id) >= limit_ms then
    kept = true
    break
  end
  if pending[id] then
    head = false
  else
    gone, freed = gone + 1, freed + sizes[i]
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
