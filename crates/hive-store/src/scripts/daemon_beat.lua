#!lua flags=allow-oom
--[[
daemon_beat: say that a daemon lives; read who else does, and which data Redis holds.

Why one script: all times are Redis' own, so replicas agree on who is gone; and a nonce is made only
where in the same step nobody alive knows one.

KEYS
  1 daemons  hash    `<daemon>/<instance>` -> `<ms> <advertise> <version> <started> <known nonce>`
  2 nonce    string  `<current> <earlier...>`, or `lost <known...>`
ARGV
  1 member     text    `<daemon>/<instance>`, or `-` to read only
  2 advertise  text    address for callers
  3 version    text    build
  4 started_ms u53     when it started, by the clock of its host; recorded, never compared
  5 gone_ms    u53     silent for longer is gone
  6 leave      0|1     1: the daemon goes
  7 now_ms     u53     0, or the time instead of Redis' own (tests)
  8 known      text    nonce that the daemon knows, or `-`
  9 fresh      text    nonce to store where there is none
RETURNS  { status, now_ms, rows, nonce }
  OK  now, flat list of member, row for those that live, and what the nonce's key holds: made now
      where nobody alive knew one, else marked as lost
IDEMPOTENT  yes
COST        O(daemons)
INVARIANTS  C2 (replicas agree on who lives), C3 (lost data is never gone on with by itself)
]]
local now = tonumber(ARGV[7])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if ARGV[6] == '1' then
  redis.call('HDEL', KEYS[1], ARGV[1])
elseif ARGV[1] ~= '-' then
  redis.call('HSET', KEYS[1], ARGV[1],
    string.format('%.0f %s %s %s %s', now, ARGV[2], ARGV[3], ARGV[4], ARGV[8]))
end
local rows, live, known = redis.call('HGETALL', KEYS[1]), {}, {}
for i = 1, #rows, 2 do
  local beat = tonumber(string.match(rows[i + 1], '^%d+'))
  if now - beat > tonumber(ARGV[5]) then
    redis.call('HDEL', KEYS[1], rows[i])
  else
    live[#live + 1] = rows[i]
    live[#live + 1] = rows[i + 1]
    known[#known + 1] = string.match(rows[i + 1], '^%d+ %S* %S* %S* (%x+)$')
  end
end
local nonce = redis.call('GET', KEYS[2]) or ''
if nonce == '' and ARGV[6] ~= '1' and ARGV[1] ~= '-' then
  nonce = #known == 0 and ARGV[9] or 'lost ' .. known[1]
  redis.call('SET', KEYS[2], nonce)
end
return { 'OK', string.format('%.0f', now), live, nonce }
