#!lua flags=allow-oom
--[[
clock_tick: note the time, and start a grace where it jumped or Redis started anew.

Why one script: whoever expires leases reads the grace that the same step would start.

KEYS
  1 clock     hash    last_ms, run_id, lease_ms; grace_from, grace_until; back_ms, back_from
  2 gateways  hash    gateway incarnation -> last beat in ms
ARGV
  1 run_id    text    Redis' run id, as the caller read it on this connection
  2 lease_ms  u53     how long a grace is: the longest lease that the caller knows
  3 gateway   id      the gateway that beats, which knows the leases of its own groups alone; or `-`
                      for a coordinator, which knows all
  4 now_ms    u53     0, or the time instead of Redis' own (tests)
RETURNS  { status, now_ms, grace_until, grace_from, back_ms }
  OK    now, grace_until, grace_from, back_ms  grace_until 0 or a past time: leases may be expired;
        back_ms more than 0: the clock went back by so much, and due times were not shifted yet
IDEMPOTENT  yes
COST        O(1)
INVARIANTS  M8 (a restart or a clock step expires no healthy lease)
]]
local now = tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local row = redis.call('HMGET', KEYS[1], 'last_ms', 'run_id', 'grace_until', 'lease_ms',
  'grace_from', 'back_ms')
local last, run_id, grace = tonumber(row[1] or 0), row[2], tonumber(row[3] or 0)
local from, back = tonumber(row[5] or 0), tonumber(row[6] or 0)
local lease = tonumber(ARGV[2])
if ARGV[3] ~= '-' then lease = math.max(lease, tonumber(row[4] or 0)) end
-- A backward step would leave a grace of the old time far in the future.
if grace > now + 2 * lease then grace = now + lease end
if last == 0 then
  -- Nobody noted the time before: what was silent until now may have had nobody to speak to.
  from = now
elseif math.abs(now - last) > 5000 or run_id ~= ARGV[1] then
  grace, from = now + lease, now
end
local function text(number) return string.format('%.0f', number) end
if last - now > 5000 then
  -- Entries nacked since the step must not be shifted: they are due before the old time was, but
  -- for what was due in its last minute and nobody came to move.
  back = back + last - now
  redis.call('HSET', KEYS[1], 'back_ms', text(back), 'back_from', text(math.max(now, last - 60000)))
end
redis.call('HSET', KEYS[1], 'last_ms', text(now), 'run_id', ARGV[1], 'grace_until', text(grace),
  'grace_from', text(from), 'lease_ms', text(lease))
if ARGV[3] ~= '-' then redis.call('HSET', KEYS[2], ARGV[3], text(now)) end
return { 'OK', text(now), text(grace), text(math.min(from, now)), text(back) }
