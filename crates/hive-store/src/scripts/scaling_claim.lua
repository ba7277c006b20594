#!lua flags=allow-oom
--[[
scaling_claim: make a coordinator the owner of how groups are scaled.

Why one script: two coordinators that both take a group for theirs never have the same epoch of it,
so that at most one of them writes.

KEYS
  1 scaling  hash    group -> `<epoch> <owner> <decided_ms> <desired or -> <asked> <state>`
ARGV
  1 owner   id      the coordinator, without blanks
  2 now_ms  u53     0, or the time instead of Redis' own (tests)
  3.. groups
RETURNS  { status, rows }
  OK  the row of each group, in order: with the next epoch where its owner was another one
IDEMPOTENT  yes: a row that is the caller's keeps its epoch
COST        O(size of the rows), 3 us a group
INVARIANTS  S1 (a scaling row changes under its epoch and owner), E1 (fencing)
]]
local owner, now, rows = ARGV[1], tonumber(ARGV[2]), {}
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
for i = 3, #ARGV do
  local row = redis.call('HGET', KEYS[1], ARGV[i]) or '0 - 0 - 0 '
  local epoch, held, rest = string.match(row, '^(%d+) (%S+) (.*)$')
  -- Of what cannot be read nobody knows the epoch: the time is above all that were counted.
  if not epoch or #epoch > 15 then epoch, held, rest = now, '-', '0 - 0 ' end
  if held ~= owner then
    row = string.format('%.0f %s ', tonumber(epoch) + 1, owner) .. rest
    redis.call('HSET', KEYS[1], ARGV[i], row)
  end
  rows[#rows + 1] = row
end
return { 'OK', rows }
