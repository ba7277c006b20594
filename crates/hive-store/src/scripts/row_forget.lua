#!lua flags=allow-oom
--[[
row_forget: remove rows of a hash that are still as they were read.

Why one script: whoever renews a row between the look and the removal must not lose what he wrote.

KEYS
  1 rows  hash    name -> row
ARGV
  1.. rows of (name, row as it was read)
RETURNS  { status, count }
  OK  so many rows are gone; what has changed, or is not there, stays as it is
IDEMPOTENT  yes
COST        O(rows)
INVARIANTS  M1 (nothing that was accepted is forgotten)
]]
local count = 0
for at = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then
    count = count + redis.call('HDEL', KEYS[1], ARGV[at])
  end
end
return { 'OK', count }
