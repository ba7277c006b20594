#!lua flags=allow-oom
--[[
handover_trim: forget what became of tasks or of tracked messages, or dead letters that were taken.

Why one script: a row without its record, or a record without its row, would let a dispatch key have
a second outcome.

KEYS
  1 records  stream  what became of tasks; or `outcomes`, of tracked messages; or dead letters
  2 tasks    hash    dispatch key -> `open <s|a> <lane ref>|<id>`, `acked`, or
                     `ended <outcome> <settled id>`
  3 applied  hash    `id` -> the last record that was applied; or `sizes` for `outcomes`: of it
                     `~ outcomes` -> bytes of them, each with its key, what was said, and 128
ARGV
  1 keep_ms  u53     keep records for so long
  2 limit    u53     most records to remove
  3 now_ms   u53     0, or the time instead of Redis' own (tests)
  4 tracked  0|1     1: of tracked messages
RETURNS  { status, removed, more }
  OK  removed, 0|1  so many are gone, and the rows of those that ended a task; 1: call again
IDEMPOTENT  yes
COST        O(limit); reads 4 MiB, give or take a page of ten
INVARIANTS  T2 (one outcome for a dispatch key: a row that is open stays), M1
]]
local now = tonumber(ARGV[3])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local tracked, freed, applied_ms, applied_seq = ARGV[4] == '1', 0, math.huge, 0
if not tracked then applied_ms, applied_seq = parts(redis.call('HGET', KEYS[3], 'id') or '0-0') end
local old = now - tonumber(ARGV[1])
local from, left, room, removed, last, is_end = '-', tonumber(ARGV[2]), 4194304, 0, nil, false
while left > 0 and room > 0 and not is_end do
  local want = math.min(10, left)
  local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', want)
  is_end = #page < want
  for _, record in ipairs(page) do
    local id, fields = record[1], {}
    local ms, seq = parts(id)
    if ms >= old or ms > applied_ms or ms == applied_ms and seq > applied_seq then
      is_end = true
      break
    end
    for f = 1, #record[2], 2 do
      fields[record[2][f]] = record[2][f + 1]
      room = room - #record[2][f + 1]
    end
    local row = fields.k == 'ended' and redis.call('HGET', KEYS[2], fields.d)
    if row and string.match(row, '^ended %S+ (%S+)$') == id then
      redis.call('HDEL', KEYS[2], fields.d)
    end
    removed, last = removed + 1, id
    -- Dead letters have no key.
    freed = freed + 128 + #(fields.d or '') + #(fields.b or '')
  end
  left, from = left - want, last and '(' .. last or '-'
end
if last then
  local ms, seq = string.match(last, '^(%d+)-(%d+)$')
  redis.call('XTRIM', KEYS[1], 'MINID', '=', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
end
-- An older version did not count: what is left is never less than nothing, nor more than is there.
if tracked and redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('HDEL', KEYS[3], '~ outcomes')
elseif tracked and freed > 0 then
  local bytes = math.max(0, tonumber(redis.call('HGET', KEYS[3], '~ outcomes') or 0) - freed)
  redis.call('HSET', KEYS[3], '~ outcomes', string.format('%.0f', bytes))
end
return { 'OK', tostring(removed), is_end and '0' or '1' }
