#!lua flags=allow-oom
--[[
clock_tick: note the time, and start a grace where it jumped or Redis started anew.

Why one script: whoever expires leases reads the grace that the same step would start.

KEYS
  1 clock     hash    last_ms, run_id, grace_until, lease_ms
  2 gateways  hash    gateway incarnation -> last beat in ms
ARGV
  1 run_id    text    Redis' run id, as the caller read it on this connection
  2 lease_ms  u53     how long a grace is: the longest lease
  3 gateway   id      the gateway that beats, or `-`
  4 now_ms    u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, now_ms, grace_until }
  OK    now, grace_until  0 or a past time: leases may be expired
IDEMPOTENT  yes
COST        O(1)
INVARIANTS  M8 (a restart or a clock step expires no healthy lease)
]]
local now = tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local row = redis.call('HMGET', KEYS[1], 'last_ms', 'run_id', 'grace_until', 'lease_ms')
local last, run_id, grace = tonumber(row[1] or 0), row[2], tonumber(row[3] or 0)
-- A gateway knows the leases of its own groups alone: the longest that anybody named counts.
local lease = math.max(tonumber(ARGV[2]), tonumber(row[4] or 0))
-- A backward step would leave a grace of the old time far in the future.
if grace > now + 2 * lease then grace = now + lease end
if last > 0 and (math.abs(now - last) > 5000 or run_id ~= ARGV[1]) then grace = now + lease end
redis.call('HSET', KEYS[1], 'last_ms', string.format('%.0f', now), 'run_id', ARGV[1],
  'grace_until', string.format('%.0f', grace), 'lease_ms', string.format('%.0f', lease))
if ARGV[3] ~= '-' then
  redis.call('HSET', KEYS[2], ARGV[3], string.format('%.0f', now))
end
return { 'OK', string.format('%.0f', now), string.format('%.0f', grace) }
