#!lua flags=allow-oom
--[[
handover_read: read on in what a shard hands over, as far as one answer may hold.

Why one script: how large a record is shows only once it was read; here what is too much stays in
Redis. It only reads.

KEYS
  1 records  stream  what became of tasks, or dead letters
ARGV
  1 after  id      read what is behind it
  2 limit  u53     most records
RETURNS  { status, records }
  OK  records as XRANGE answers them. Of tasks with the fields `d` dispatch key, `k` kind (`started`
      or `ended`); of `started`: `c` consumer, `n` deliveries; of `ended`: `o` outcome, `b` bytes.
      Of dead letters with those that settle writes
IDEMPOTENT  yes
COST        O(limit); reads 4 MiB, give or take a page of ten
INVARIANTS  T2 (one outcome for a dispatch key), D3 (a dead delivery has one record)
]]
local from, left, room, largest, found = '(' .. ARGV[1], tonumber(ARGV[2]), 4194304, 1048576, {}
while left > 0 and room > 0 do
  local want = math.min(10, left, math.max(1, math.floor(room / largest)))
  local page = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', want)
  if #found == 0 then largest = 1024 end
  for _, record in ipairs(page) do
    local size = 0
    for _, text in ipairs(record[2]) do size = size + #text end
    room, largest = room - size, math.max(largest, size)
    found[#found + 1] = record
  end
  if #page < want then break end
  left, from = left - want, '(' .. page[want][1]
end
return { 'OK', found }
