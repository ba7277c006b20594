#!lua flags=allow-oom
--[[
pending_check: find what is delivered and unsettled in a lane and is not there any more.

Why one script: an entry that is settled and trimmed between two looks would pass for lost. It only
reads; XCLAIM, which also tells, would take the evidence away.

KEYS
  1 lane  stream
ARGV
  1 group  name
  2 from   id      `-`, or `(id` for what is behind it
  3 limit  u53     most entries to look at
  4 bytes  u53     looks at no more entries once their bodies sum up to this
RETURNS  { status, last, missing }
  OK  last id looked at, "" for none; ids without an entry
IDEMPOTENT  yes
COST        O(limit) and the bodies, which Redis has no way not to read
INVARIANTS  M1 (nothing accepted is lost)
]]
local rows = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], '+', ARGV[3])
local last, missing, bytes = '', {}, 0
for _, row in ipairs(rows) do
  if bytes >= tonumber(ARGV[4]) then break end
  last = row[1]
  local entry = redis.call('XRANGE', KEYS[1], last, last)[1]
  if entry then
    bytes = bytes + #entry[2][2]
  else
    missing[#missing + 1] = last
  end
end
return { 'OK', last, missing }
