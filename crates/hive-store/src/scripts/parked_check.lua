#!lua flags=allow-oom
--[[
parked_check: find what is parked behind its ordering key and outlived its time.

Why one script: bodies stay in Redis, only ids leave it. It only reads; whoever ends an entry checks
again that it is parked.

KEYS
  1 lane  stream
ARGV
  1 group   name
  2 from    id      `-`, or `(id` for what is behind it
  3 limit   u53     most entries to look at
  4 bytes   u53     looks at no more entries once their bodies sum up to this
  5 now_ms  u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, last, expired }
  OK  last id looked at, "" for none; flat list of id, delivery count
IDEMPOTENT  yes
COST        O(limit) and the bodies, which Redis has no way not to read
INVARIANTS  M1 (nothing accepted is lost)
]]
local now = tonumber(ARGV[5])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local rows = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], '+', ARGV[3], '~ordered')
local last, expired, bytes = '', {}, 0
for _, row in ipairs(rows) do
  if bytes >= tonumber(ARGV[4]) then break end
  last = row[1]
  local entry = redis.call('XRANGE', KEYS[1], last, last)[1]
  local body = entry and entry[2][2] or ''
  local expires = string.byte(body, 1) == 2 and struct.unpack('>I8', body, 15) or 0
  bytes = bytes + #body
  if expires > 0 and expires <= now then
    expired[#expired + 1] = last
    expired[#expired + 1] = row[4]
  end
end
return { 'OK', last, expired }
