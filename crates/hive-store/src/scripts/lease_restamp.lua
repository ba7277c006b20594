#!lua flags=allow-oom
--[[
lease_restamp: start deliveries anew that were made at a time which is yet to come.

Why one script: XCLAIM takes an entry from whoever has it; only for the owner that the same step
read is it no theft.

KEYS
  1 lane  stream
ARGV
  1 group  name
  2 from   id      `-`, or `(<id>` to go on behind it
  3 limit  u53     most deliveries to look at
RETURNS  { status, last, restamped }
  OK  last, restamped  call again behind the id `last`; empty at the end
IDEMPOTENT  yes: it only moves a deadline
COST        1 us a delivery
INVARIANTS  M4 (an entry keeps its owner), M6 (the lease stays its holder's)
]]
local rows = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], '+', ARGV[3])
local owners, restamped = {}, 0
for _, row in ipairs(rows) do
  -- Redis shows no idle time below 0. What waits in an index goes by its due time.
  if row[3] == 0 and (string.sub(row[2], 1, 1) ~= '~' or row[2] == '~taken') then
    local ids = owners[row[2]] or {}
    ids[#ids + 1] = row[1]
    owners[row[2]] = ids
    restamped = restamped + 1
  end
end
for owner, ids in pairs(owners) do
  ids[#ids + 1] = 'JUSTID'
  redis.call('XCLAIM', KEYS[1], ARGV[1], owner, 0, unpack(ids))
end
return { 'OK', rows[#rows] and rows[#rows][1] or '', tostring(restamped) }
